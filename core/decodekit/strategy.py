"""The contract of a decoding strategy: what to do with a batch of rows at each step."""

import enum
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from decodekit.processor import API_VERSION, CallContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel
    from transformers.modeling_layers import MtpModel

    from decodekit.batch import Batch

__all__ = ["Capability", "Strategy", "StrategyLaws"]


class Capability(enum.StrEnum):
    """What a strategy may need of a model session; the session says what it offers."""

    SELECT = "select"
    """Rows can be chosen, reordered and duplicated."""
    ROLLBACK = "rollback"
    """Each row can take back a different number of tokens."""
    POSITIONS = "positions"
    """The logits of several positions come from one forward pass."""
    HIDDEN_STATES = "hidden_states"
    """The model returns its hidden states."""


@attrs.frozen(kw_only=True)
class StrategyLaws:
    """What a strategy promises; the conformance kit checks each promise, and a false one fails.

    Attributes:
        deterministic: draws nothing.
        greedy_limit: at temperature 0 the tokens are those of greedy decoding.
        lossless: a sequence has the probability that plain sampling gives it.
        width: name of the parameter that is how many sequences a search keeps; where it keeps all that there
            are, and parameters with a neutral value stand at it, it finds the most probable sequences.
        without_replacement: the rows of a prompt are drawn from the law of its sequences without replacement.
        verifies: name of the parameter that takes a drafter, whose drafts are verified.
        acceptance: how a drafted token is judged there: ``rejection`` keeps it with probability min(1, p/q),
            ``coupled`` where plain sampling draws the same token with the same noise.
    """

    deterministic: bool = False
    greedy_limit: bool = False
    lossless: bool = False
    width: str | None = None
    without_replacement: bool = False
    verifies: str | None = None
    acceptance: Literal["rejection", "coupled"] | None = None


class Strategy:
    """Base class of decoding strategies; subclass it as an `attrs.frozen` class.

    A subclass names itself (``NAME``), declares its parameters with `decodekit.param`, what it needs
    of the model session (``NEEDS``) and its laws (``LAWS``), and defines ``step``. It must keep
    nothing that is indexed by batch position: what belongs to a row goes into ``batch.rows[i].memo``,
    which moves with the row.
    """

    __slots__ = ()
    NAME: ClassVar[str] = ""
    API_VERSION: ClassVar[int] = API_VERSION
    NEEDS: ClassVar[frozenset[Capability]] = frozenset()
    LAWS: ClassVar[StrategyLaws] = StrategyLaws()
    SAMPLES: ClassVar[bool] = False
    """Whether it draws tokens, so that temperature and the truncations of the configuration apply."""
    SEARCHES: ClassVar[bool] = False
    """Whether the rows of a prompt are alternatives, of which `finish` keeps the best with `Batch.keep`."""

    POSITIONAL: ClassVar[bool] = False
    """Whether it draws at one position more than once (a draft and its verification), so that the draws
    must repeat: a call without a seed then takes its seeds from torch's global generator."""

    GRADIENTS: ClassVar[bool] = False
    """Whether a step computes gradients, or keeps tensors for whoever does; steps may run in torch's
    inference mode otherwise."""

    ADMITS: ClassVar[bool] = False
    """Whether rows of other calls may join a batch between two of its steps. Such a strategy keeps nothing
    for the call as a whole, neither in ``batch.memo`` nor by `bind`, and its `start` and `finish` look at
    each row by itself. The prompts of others are decoded batch by batch. On an accelerator its next pass
    may begin before the tokens that it commits are read (`decodekit.late`)."""

    def bind(self, model: "PreTrainedModel", context: CallContext) -> "Strategy":
        """Return the strategy for one call, e.g. with what it makes of the ``model``.

        Called once, before the first forward pass; raise here when something is missing.
        """
        return self

    @property
    def laws(self) -> StrategyLaws:
        """`LAWS`, unless a parameter decides."""
        return self.LAWS

    @property
    def models(self) -> "Mapping[str, PreTrainedModel]":
        """Further models by session name, opened before `start`; they must have the same vocabulary."""
        return {}

    @property
    def foreign_models(self) -> "Mapping[str, PreTrainedModel]":
        """Further models with tokens of their own, by session name, for `Batch.own_logits`."""
        return {}

    @property
    def heads(self) -> "MtpModel | None":
        """Layers that read the target's last hidden states, for `Batch.ahead`."""
        return None

    @property
    def needs(self) -> frozenset[Capability]:
        """`NEEDS`, and what its parameters need."""
        return self.NEEDS

    @property
    def lookahead(self) -> int:
        """The most tokens that it drafts, for which a static cache needs room."""
        return 0

    @property
    def samples(self) -> bool:
        """`SAMPLES`, unless a parameter decides."""
        return self.SAMPLES

    def rows_per_prompt(self, num_return_sequences: int) -> int:
        """How many rows a prompt has at once; by default as many as are returned."""
        return num_return_sequences

    def start(self, batch: "Batch") -> None:
        """Prepare, once, after the prompts are in the session; by default nothing."""

    def step(self, batch: "Batch") -> None:
        """Look at the batch's logits and commit at least one token to every row."""
        message = f"{type(self).__name__} must define step(self, batch)"
        raise TypeError(message)

    def finish(self, batch: "Batch") -> None:
        """Tidy up, once, after the last row has finished; by default nothing."""

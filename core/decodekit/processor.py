"""The contract of a logits processor: a pure function ``(logits, history) -> logits``."""

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import attrs
from torch import Tensor

from decodekit.head import WIDTH, Cut, Head
from decodekit.history import History
from decodekit.params import params_of
from decodekit.place import Place

__all__ = ["API_VERSION", "CallContext", "Laws", "Processor", "StatefulProcessor"]

API_VERSION = 1
State = TypeVar("State")


@attrs.frozen(kw_only=True)
class Laws:
    """What a processor promises; the conformance kit checks each promise, and a false one fails.

    Attributes:
        shift_invariant: ``f(x + c)`` has the law of ``f(x)``.
        permutation_equivariant: relabelling the vocabulary relabels the result (tie-free rows).
        keeps_argmax: a token of the largest input logit keeps the largest output logit.
        keeps_order: no two survivors swap.
        keeps_ratios: survivors keep ``p_i / p_j``: a pure truncation.
        upper_set: if a token survives, so does every more probable one.
        idempotent: applying it twice is applying it once.
        commutes_with_temperature: ``f(x / t)`` has the law of ``f(x) / t``.
        nested: name of the parameter in which the kept sets grow; ``-name`` when they shrink.
        smallest: name of the parameter that is a probability; the kept set is the smallest that has it, so
            that without the least of its tokens it has not.
        commutes_with: names of the processors with which it can change places in a chain.
        may_empty: may leave a row without any token (`EmptySupportError` is then raised by the core).
        may_revive: may make an impossible (-inf) token possible again.
    """

    shift_invariant: bool = False
    permutation_equivariant: bool = False
    keeps_argmax: bool = False
    keeps_order: bool = False
    keeps_ratios: bool = False
    upper_set: bool = False
    idempotent: bool = False
    commutes_with_temperature: bool = False
    nested: str | None = None
    smallest: str | None = None
    commutes_with: tuple[str, ...] = ()
    may_empty: bool = False
    may_revive: bool = False


@attrs.frozen(kw_only=True)
class CallContext:
    """What one call of generate knows before its first forward pass.

    Attributes:
        vocab_size: the width of the logits.
        eos_token_ids: every end-of-sequence id of the call; may be empty.
        tokenizer: the tokenizer given to the call, or None.
        batch_size: rows as the call begins; fewer are live later.
        max_new_tokens: the most tokens that a row may get; None when nobody knows.
        prompt_width: columns of the prompts as they were given, padding included.
        pad_token_id: what stands in columns that are padding.
        sources: of an encoder-decoder model the token ids that its encoder reads for each prompt, none
            where it reads no tokens; None for a decoder-only model, whose prompt is in the history.
    """

    vocab_size: int
    eos_token_ids: tuple[int, ...] = ()
    tokenizer: Any = None
    batch_size: int = 1
    max_new_tokens: int | None = None
    prompt_width: int = 0
    pad_token_id: int = 0
    sources: Sequence[Sequence[int]] | None = None


class Processor:
    """Base class of logits processors; subclass it as an `attrs.frozen` class.

    A subclass names itself (``NAME``), declares its parameters with `decodekit.param`, its laws
    (``LAWS``), and defines ``__call__``. The call must be pure: a new tensor, never in place; no
    random draw, no model call, no memory of earlier calls; each row depends on that row alone;
    -inf stays -inf. Parameters are plain numbers: values per row are the core's work.
    """

    __slots__ = ()
    NAME: ClassVar[str] = ""
    API_VERSION: ClassVar[int] = API_VERSION
    LAWS: ClassVar[Laws] = Laws()
    PLACE: ClassVar[Place] = Place()
    CLEANS: ClassVar[bool] = False
    """Whether it takes NaN and infinities out of the logits; without such a one they are an error."""

    REPEATABLE: ClassVar[bool] = True
    """Whether it may be asked twice about one step: false for foreign code that may count its calls."""
    BY_ROW: ClassVar[frozenset[str]] = frozenset()
    """Parameters that may also be a tensor [B, 1] with a value for each row, in `cut` or, without one, in
    ``__call__``: rows with values of their own then go through the formula together."""

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the new logits.

        Args:
            logits: float32 [B, V]; never change it in place.
            history: the tokens of the B rows.

        Returns:
            A tensor of the same shape, dtype and device.
        """
        message = f"{type(self).__name__} must define __call__(self, logits, history)"
        raise TypeError(message)

    def bind(self, context: CallContext) -> "Processor":
        """Return the processor for one call, e.g. with ids filled in from the tokenizer.

        Called once, before the first forward pass; raise here when something is missing.
        """
        return self

    @property
    def forbids(self) -> frozenset[int]:
        """Tokens that it makes impossible at every step, as far as a plan of the chain should know."""
        return frozenset()

    @property
    def forces(self) -> frozenset[int]:
        """Tokens of which it forces one at some step."""
        return frozenset()

    @property
    def reach(self) -> int:
        """How many of the largest logits `cut` looks at first."""
        return WIDTH

    def cut(self, head: Head) -> Cut | None:
        """The short form of a truncation: where it cuts, told from the largest logits of each row.

        ``__call__`` stays the definition, and the kit compares the two. It is asked for the rows of which
        the cut is not clear, and for all when this returns None.
        """
        return None

    @property
    def is_neutral(self) -> bool:
        """Whether every parameter that has a neutral value stands at it, so that nothing would change."""
        neutral = {
            name: info.neutral
            for name, info in params_of(type(self)).items()
            if info.neutral is not attrs.NOTHING
        }
        return bool(neutral) and all(getattr(self, name) == value for name, value in neutral.items())

    def describe(self) -> str:
        """The processor in short, without parameters at their defaults.

        ``top_k=50`` when only the parameter of its own name is left to say, otherwise
        ``top_k(top_k=50, min_tokens_to_keep=2)``.
        """
        values = {
            name: getattr(self, name)
            for name, info in params_of(type(self)).items()
            if name == self.NAME or getattr(self, name) != info.default
        }
        inner = ", ".join(f"{name}={_short(value)}" for name, value in values.items())
        if set(values) == {self.NAME}:
            return inner
        return f"{self.NAME}({inner})" if inner else self.NAME


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


class StatefulProcessor(Processor, Generic[State]):
    """A processor that truly needs memory; its state is a value that the core keeps a row.

    The core forks states along drafts and beams and drops the forks of what was rejected, so
    ``advance`` must return a new value and leave the old one as it was.
    """

    __slots__ = ()

    def init(self, prompt: list[int]) -> State:
        """The state of a row before its first generated token."""
        message = f"{type(self).__name__} must define init(self, prompt)"
        raise TypeError(message)

    def advance(self, state: State, token: int, logits: Tensor) -> State:
        """The state after ``token``; ``logits`` float [V] is the row of what `memory` kept there."""
        message = f"{type(self).__name__} must define advance(self, state, token, logits)"
        raise TypeError(message)

    def process(self, logits: Tensor, history: History, states: list[State]) -> Tensor:
        """Like ``__call__`` of a stateless processor, with one state a row."""
        message = f"{type(self).__name__} must define process(self, logits, history, states)"
        raise TypeError(message)

    def memory(self, logits: Tensor, processed: Tensor) -> Tensor:
        """What `advance` will see of a call: [B, V], the result unless a subclass needs its input."""
        return processed

    def forced(self, state: State) -> Sequence[int]:
        """The text that must come after ``state``, as tokens; by default nothing is known.

        They are proposals: a strategy takes them as a draft, and verifies them in one forward pass instead of
        asking the model for each.
        """
        return ()

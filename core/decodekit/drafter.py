"""The contract of a drafter: what proposes tokens that a speculating strategy then verifies."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs
from torch import Tensor

from decodekit.distribution import Distribution
from decodekit.processor import API_VERSION, CallContext
from decodekit.strategy import Capability

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel
    from transformers.modeling_layers import MtpModel

    from decodekit.batch import Batch

__all__ = ["Draft", "Drafter", "DrafterLaws", "Pick"]

Pick = Callable[[Distribution], Tensor]
"""Takes a token of every row, int64 [B], in the way in which the call verifies drafts: the argmax, a
draw with the noise that plain decoding has there, or a draw with noise of its own."""


@attrs.frozen(eq=False)
class Draft:
    """What a drafter proposes.

    Attributes:
        tokens: for each row its next tokens; may be ragged or empty.
        q: column ``j`` is the distribution [B, V] of which every row's token ``j`` was picked, made by
            `Batch.dist`. Empty for a drafter that draws nothing: its tokens have probability 1.
    """

    tokens: list[list[int]]
    q: Sequence[Distribution] = ()


@attrs.frozen(kw_only=True)
class DrafterLaws:
    """What a drafter promises; the conformance kit checks each promise, and a false one fails.

    Attributes:
        reports_q: gives the distributions from which its tokens were picked. One that doesn't is
            deterministic: the same tokens for the same row, whatever the noise.
    """

    reports_q: bool = False


class Drafter:
    """Base class of drafters; subclass it as an `attrs.frozen` class.

    A subclass names itself (``NAME``), declares its parameters with `decodekit.param`, what it needs
    of the target's session (``NEEDS``) and its laws (``LAWS``), and defines ``draft``. A wrong draft
    costs time and never a token. What a drafter remembers of a row goes into ``row.memo``, which moves
    with the row and is copied shallowly when the row forks.
    """

    __slots__ = ()
    NAME: ClassVar[str] = ""
    API_VERSION: ClassVar[int] = API_VERSION
    NEEDS: ClassVar[frozenset[Capability]] = frozenset()
    LAWS: ClassVar[DrafterLaws] = DrafterLaws()

    @property
    def models(self) -> "Mapping[str, PreTrainedModel]":
        """Further models of the target's vocabulary, by session name, for `Batch.logits`."""
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
    def longest_draft(self) -> int | None:
        """The most tokens that it ever drafts; None where that is as many as it is asked for."""
        return None

    def bind(self, model: "PreTrainedModel", context: CallContext) -> "Drafter":
        """Return the drafter for one call, e.g. with what it makes of the target ``model``.

        Called once, before the first forward pass; raise here when something is missing.
        """
        return self

    def draft(self, batch: "Batch", lengths: Sequence[int], pick: Pick) -> Draft:
        """Propose the next tokens of every row.

        Args:
            batch: the live rows; committed tokens are ``row.since(0)``. Do not commit or select.
            lengths: the most tokens for each row; none is fine, and 0 says that none is wanted.
            pick: how a token is taken from a distribution.
        """
        message = f"{type(self).__name__} must define draft(self, batch, lengths, pick)"
        raise TypeError(message)

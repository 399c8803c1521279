"""Suppressed tokens: some tokens never."""

from typing import ClassVar

import attrs
from decodekit import History, Laws, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._token_ids import check_ids, forbid

__all__ = ["SuppressTokens"]


@attrs.frozen
class SuppressTokens(Processor):
    """Forbid some tokens wherever they stand.

    Source: transformers, the argument of that name.
    Range: suppress_tokens holds token ids in [0, inf); those without a logit need no suppression.
    Shape: logits [B, V] -> [B, V].
    Keeps: every other token.
    Raises: ParameterError when an id is negative.
    """

    NAME: ClassVar[str] = "suppress_tokens"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        keeps_order=True,
        keeps_ratios=True,
        idempotent=True,
        commutes_with_temperature=True,
        commutes_with=("frequency_penalty", "min_new_tokens", "temperature"),
        may_empty=True,
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.MASK)

    suppress_tokens: tuple[int, ...] = param(help="The token ids that are forbidden, e.g. [7, 11].")

    def __attrs_post_init__(self) -> None:
        check_ids(self.NAME, self.suppress_tokens)

    @property
    def forbids(self) -> frozenset[int]:
        """The suppressed tokens."""
        return frozenset(self.suppress_tokens)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf for the suppressed tokens."""
        return forbid(logits, self.suppress_tokens, history.lengths >= 0)

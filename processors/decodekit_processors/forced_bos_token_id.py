"""Forced BOS: what comes after a prompt of one token."""

from typing import ClassVar

import attrs
from decodekit import CallContext, History, Laws, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._token_ids import check_ids, force

__all__ = ["ForcedBosTokenId"]


@attrs.frozen
class ForcedBosTokenId(Processor):
    """Let a row of one token go on with one certain token.

    Source: transformers, the argument of that name. There the columns of the batch count, padding
        included; here each row's own tokens.
    Range: forced_bos_token_id in [0, V).
    Shape: logits [B, V] -> [B, V].
    Law: 0 for that token and -inf for all others in the rows that have one token; the others stay.
    Raises: ParameterError when forced_bos_token_id is not in its range.
    """

    NAME: ClassVar[str] = "forced_bos_token_id"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        keeps_order=True,
        keeps_ratios=True,
        idempotent=True,
        commutes_with_temperature=True,
        may_revive=True,
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.MASK)

    forced_bos_token_id: int = param(help="The token that is forced; in [0, V).")

    def __attrs_post_init__(self) -> None:
        check_ids(self.NAME, [self.forced_bos_token_id])

    def bind(self, context: CallContext) -> "ForcedBosTokenId":
        """Return itself, when the vocabulary has the token."""
        check_ids(self.NAME, [self.forced_bos_token_id], context.vocab_size)
        return self

    @property
    def forces(self) -> frozenset[int]:
        """The token that is forced."""
        return frozenset({self.forced_bos_token_id})

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with the token forced in the rows of one token."""
        return force(logits, [self.forced_bos_token_id], history.lengths == 1)

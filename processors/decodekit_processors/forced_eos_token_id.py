"""Forced EOS: how a row ends that reaches its greatest length."""

from typing import ClassVar

import attrs
from decodekit import CallContext, History, Laws, ParameterError, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._token_ids import check_ids, force

__all__ = ["ForcedEosTokenId"]


@attrs.frozen
class ForcedEosTokenId(Processor):
    """Let the last token that a row may generate be one of certain tokens.

    Source: transformers, the argument of that name.
    Range: forced_eos_token_id holds one or more token ids in [0, V).
    Shape: logits [B, V] -> [B, V].
    Law: 0 for these tokens and -inf for all others where one more token makes the row as long as the
        call allows; the others stay.
    Raises: ParameterError when there is no id, or an id that is no token's.
    """

    NAME: ClassVar[str] = "forced_eos_token_id"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True, idempotent=True, commutes_with_temperature=True, may_revive=True
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.MASK)

    forced_eos_token_id: tuple[int, ...] = param(help="The token that is forced, or several; less than V.")
    _max_new_tokens: int | None = None

    def __attrs_post_init__(self) -> None:
        if not self.forced_eos_token_id:
            message = "forced_eos_token_id=() is not allowed: give a token id, or leave it out"
            raise ParameterError(message)
        check_ids(self.NAME, self.forced_eos_token_id)

    def bind(self, context: CallContext) -> "ForcedEosTokenId":
        """Return the processor that knows the greatest length of the call."""
        check_ids(self.NAME, self.forced_eos_token_id, context.vocab_size)
        return attrs.evolve(self, max_new_tokens=context.max_new_tokens)

    @property
    def forces(self) -> frozenset[int]:
        """The tokens that may end a row."""
        return frozenset(self.forced_eos_token_id)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with the tokens forced in the rows that have room for one more."""
        if self._max_new_tokens is None:
            return logits
        return force(logits, self.forced_eos_token_id, history.new_lengths == self._max_new_tokens - 1)

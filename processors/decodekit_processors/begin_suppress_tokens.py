"""Tokens suppressed at the beginning: what no answer starts with."""

from typing import ClassVar

import attrs
from decodekit import History, Laws, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._token_ids import check_ids, forbid

__all__ = ["BeginSuppressTokens"]


@attrs.frozen
class BeginSuppressTokens(Processor):
    """Forbid some tokens as the first one that a row generates.

    Where that first token is a forced BOS, because the prompt has one token, the second counts.

    Source: transformers, the argument of that name.
    Range: begin_suppress_tokens holds token ids in [0, inf); those without a logit need no suppression.
        forced_bos_token_id in [0, inf), or None when no BOS is forced.
    Shape: logits [B, V] -> [B, V].
    Keeps: every other token there, and everything elsewhere.
    Raises: ParameterError when an id is negative.
    """

    NAME: ClassVar[str] = "begin_suppress_tokens"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        keeps_order=True,
        keeps_ratios=True,
        idempotent=True,
        commutes_with_temperature=True,
        may_empty=True,
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.MASK)

    begin_suppress_tokens: tuple[int, ...] = param(help="The ids that may not come first, e.g. [7, 11].")
    forced_bos_token_id: int | None = param(
        None, range="[0, inf)", help="The forced first token of prompts of one token, when there is one."
    )

    def __attrs_post_init__(self) -> None:
        check_ids(self.NAME, self.begin_suppress_tokens)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf for the suppressed tokens in the rows that begin."""
        begins = history.new_lengths == 0
        if self.forced_bos_token_id is not None:
            forced = history.prompt_lengths == 1
            begins = (begins & ~forced) | ((history.new_lengths == 1) & forced)
        return forbid(logits, self.begin_suppress_tokens, begins)

"""Min-new-tokens: no end before a number of generated tokens."""

from typing import ClassVar

import attrs
from decodekit import CallContext, History, Laws, Phase, Place, Processor, param
from torch import Tensor

__all__ = ["MinNewTokens"]


@attrs.frozen
class MinNewTokens(Processor):
    """Forbid every end-of-sequence token until a row has enough generated tokens.

    Source: transformers, the argument ``min_new_tokens`` of generate.
    Range: min_new_tokens in [0, inf), in tokens; 0 changes nothing.
    Shape: logits [B, V] -> [B, V].
    Keeps: every token but the EOS ids of the call, and those too once a row has min_new_tokens tokens.
    Raises: ParameterError when min_new_tokens is not in its range.
    """

    NAME: ClassVar[str] = "min_new_tokens"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_order=True,
        keeps_ratios=True,
        idempotent=True,
        commutes_with_temperature=True,
        nested="-min_new_tokens",
        commutes_with=("frequency_penalty", "temperature"),
        may_empty=True,
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.MASK)

    min_new_tokens: int = param(
        0, range="[0, inf)", neutral=0, help="The number of generated tokens before the end is allowed."
    )
    _eos: tuple[int, ...] = ()

    def bind(self, context: CallContext) -> "MinNewTokens":
        """Return the processor with the EOS ids of the call."""
        return attrs.evolve(self, eos=context.eos_token_ids)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf for the EOS ids in the rows that are too short."""
        too_short = history.new_lengths < self.min_new_tokens
        result = logits.clone()
        for token in self._eos:
            if token < logits.shape[-1]:
                result[:, token].masked_fill_(too_short, float("-inf"))
        return result

"""Exponential length penalty: the end gains with every token."""

from typing import ClassVar

import attrs
import torch
from decodekit import CallContext, History, Laws, ParameterError, Phase, Place, Processor, param
from torch import Tensor

__all__ = ["ExponentialDecayLengthPenalty"]


@attrs.frozen
class ExponentialDecayLengthPenalty(Processor):
    """Raise the logits of the EOS ids exponentially once a row has more than s generated tokens.

    Source: transformers, the argument of that name.
    Range: exponential_decay_length_penalty is (s, f): s in [0, inf), in tokens; f in (0, inf), often 1.01
        to 1.2; f = 1 changes nothing, below 1 the end loses.
    Shape: logits [B, V] -> [B, V].
    Law: ``x + |x| (f^(n - s) - 1)`` for each EOS id after n > s generated tokens, and at most the
        largest number of the dtype; the others stay.
    Raises: ParameterError when s or f is not in its range.
    """

    NAME: ClassVar[str] = "exponential_decay_length_penalty"
    LAWS: ClassVar[Laws] = Laws(permutation_equivariant=True, upper_set=True, commutes_with_temperature=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.BIAS)

    exponential_decay_length_penalty: tuple[int, float] = param(
        help="(s, f): the number of tokens before it starts, and the factor, e.g. [50, 1.05]."
    )
    _eos: tuple[int, ...] = ()

    def __attrs_post_init__(self) -> None:
        start, factor = self.exponential_decay_length_penalty
        if start < 0 or not 0 < factor < float("inf"):
            message = (
                f"exponential_decay_length_penalty={self.exponential_decay_length_penalty!r} is not allowed: "
                "the start must be int in [0, inf) and the factor float in (0, inf), e.g. [50, 1.05]"
            )
            raise ParameterError(message)

    def bind(self, context: CallContext) -> "ExponentialDecayLengthPenalty":
        """Return the processor with the EOS ids of the call."""
        return attrs.evolve(self, eos=context.eos_token_ids)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with those of the EOS ids raised."""
        ids = [token for token in self._eos if token < logits.shape[-1]]
        start, factor = self.exponential_decay_length_penalty
        largest = torch.finfo(logits.dtype).max
        late = (history.new_lengths - start).clamp(min=0).double()[:, None]
        growth = (factor**late - 1).clamp(max=largest).to(logits.dtype)
        x = logits[:, ids]
        raised = (x + x.abs() * growth).clamp(max=largest)
        result = logits.clone()
        result[:, ids] = torch.where(x.isfinite(), raised, x)
        return result

"""Skew: probability flows from the likely tokens to the unlikely ones, or back."""

import math
from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import log_probabilities

__all__ = ["Skew"]

_TINY = -40.0
"""The logarithm of a share so small that ``1 - (1 - share)^g`` is ``g * share`` in any precision."""


@attrs.frozen
class Skew(Processor):
    """Raise the cumulated probabilities of the sorted tokens to a power.

    Elsewhere the uniform number of a draw is skewed, ``u -> u^exp(-s)``; this has the same law without a
    draw. Tokens count from the most probable one on. Above 0 the likely tokens lose, below 0
    they gain. Of tokens that tie, those of lower index come first, and so don't keep equal shares.

    Source: exllamav2, the sampler setting "skew"; the closed form is the law of its transformed draw.
    Range: skew in [-5, 5]; 0 changes nothing.
    Shape: logits [B, V] -> log-probabilities [B, V]; computed in float32 or better.
    Law: ``F_i^g - F_(i-1)^g`` with ``g = exp(s)`` and ``F_i`` the probability of the first i tokens.
    Raises: ParameterError when skew is not in its range.
    """

    NAME: ClassVar[str] = "skew"
    LAWS: ClassVar[Laws] = Laws(shift_invariant=True, permutation_equivariant=True, upper_set=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.SHAPE, scope=Scope.SUPPORT)

    skew: float = param(0.0, range="[-5, 5]", neutral=0.0, help="s; above 0 the unlikely tokens gain.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logarithms of the skewed probabilities."""
        if self.skew == 0:
            return logits
        power = math.exp(self.skew)
        descending, index = torch.sort(log_probabilities(logits), dim=-1, descending=True, stable=True)
        # All in logarithms: F_i^g - F_(i-1)^g = F_i^g * (1 - (1 - share)^g) with share = p_i / F_i.
        cumulated = torch.logcumsumexp(descending, dim=-1)
        share = descending - cumulated
        exact = (-torch.expm1(power * torch.log1p(-share.exp()))).log()
        gain = torch.where(share < _TINY, share + self.skew, exact)
        skewed = power * cumulated + gain
        return torch.empty_like(skewed).scatter_(-1, index, skewed).to(logits.dtype)

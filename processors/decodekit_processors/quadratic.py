"""Quadratic (smooth) sampling: the distance to the largest logit is bent."""

from typing import ClassVar

import attrs
from decodekit import History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import possible, wide

__all__ = ["Quadratic"]


@attrs.frozen
class Quadratic(Processor):
    """Replace the distance of each logit to the largest by a parabola of it, or a cubic.

    Tokens near the largest gain, far ones lose. Elsewhere curves above 3 are let through, which lets
    the second token overtake the first; here the curve ends at 3, so that the order is kept.

    Source: kalomaze (2024), text-generation-webui, pull requests 5403 and 5551.
    Range: smoothing_factor in [0, inf), often 0.2 to 0.5, 0 changes nothing; smoothing_curve in [1, 3].
    Shape: logits [B, V] -> [B, V]; computed in float32 or better.
    Keeps: every token, their order, and the largest logit. With ``d = x - max(x)``, factor f and curve c:
        ``max(x) - f d² (3 - c) / 2 + f d³ (c - 1) / 2``.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "quadratic"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        upper_set=True,
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.SHAPE, scope=Scope.HEAD)

    smoothing_factor: float = param(
        0.3, range="[0, inf)", neutral=0.0, help="f, how steeply the distance counts; 0 is off."
    )
    smoothing_curve: float = param(1.0, range="[1, 3]", help="c: 1 is a parabola, 3 a cubic.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the bent logits."""
        if self.smoothing_factor == 0:
            return logits
        x, alive = logits.to(wide(logits)), possible(logits)
        largest = x.amax(dim=-1, keepdim=True)
        d = (x - largest).masked_fill(~alive, 0)  # not -inf, as 0 * -inf is NaN
        square, cube = (3 - self.smoothing_curve) / 2, (self.smoothing_curve - 1) / 2
        bent = largest + self.smoothing_factor * d * d * (cube * d - square)
        return bent.masked_fill(~alive, float("-inf")).to(logits.dtype)

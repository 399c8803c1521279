"""Near top: keep what is near the largest logit."""

from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

__all__ = ["NearTop"]


@attrs.frozen
class NearTop(Processor):
    """Keep the tokens whose logit is at most ``width`` below the largest of the row.

    Source: the paper, section and equation of your method.
    Range: width in [0, inf); inf changes nothing.
    Shape: logits [B, V] -> [B, V]; compared in float32 or better.
    Keeps: ``x_i >= max(x) - width``.
    Raises: ParameterError when width is not in its range.
    """

    NAME: ClassVar[str] = "near_top"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        idempotent=True,
        nested="width",
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT)
    BY_ROW: ClassVar[frozenset[str]] = frozenset({"width"})  # the formula holds for a tensor [B, 1] too

    width: float = param(
        5.0, range="[0, inf]", neutral=float("inf"), help="How far below the largest logit a token may be."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf below the width of each row."""
        x = logits.to(torch.promote_types(logits.dtype, torch.float32))
        below = x.amax(dim=-1, keepdim=True) - x
        return logits.masked_fill(below > self.width, float("-inf"))

"""P-less: the floor is the chance that two draws agree; nothing to tune."""

from typing import ClassVar

import attrs
import torch
from decodekit import Cut, Head, History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import possible, probabilities

__all__ = ["PLess"]


@attrs.frozen
class PLess(Processor):
    """Keep the tokens at least as probable as it is that two independent draws give the same token.

    With ``norm`` the floor is taken relative to that of a uniform row, which keeps more.

    Source: Tan et al. (2025), "p-less Sampling", arXiv 2509.23234: p-less, and p-less-norm.
    Range: norm is true or false.
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Keeps: ``p_i >= L`` with ``L = Σ p²``; with norm ``p_i >= (N L - 1) / (N - 1)``, where N is the number
        of possible tokens. Never empty, as both floors are at most max(p).
    Raises: ParameterError when norm is no truth value.
    """

    NAME: ClassVar[str] = "p_less"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT)

    norm: bool = param(False, help="Whether the floor is normalised by the number of possible tokens.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf below the floor of each row."""
        p = probabilities(logits)
        floor = (p * p).sum(dim=-1, keepdim=True)
        if self.norm:
            count = possible(logits).sum(dim=-1, keepdim=True)
            floor = (count * floor - 1) / (count - 1).clamp(min=1)
        # Rounding may lift the floor of a uniform row above its only probability.
        floor = torch.minimum(floor, p.amax(dim=-1, keepdim=True))
        return logits.masked_fill(p < floor, float("-inf"))

    def cut(self, head: Head) -> Cut:
        """Where it cuts, told from the largest logits."""
        floor = (2 * head.whole).logsumexp(dim=-1, keepdim=True) - 2 * head.log_total
        if self.norm:
            count = possible(head.whole).sum(dim=-1, keepdim=True)
            floor = ((count * floor.exp() - 1) / (count - 1).clamp(min=1)).log()
        return head.near(floor + head.log_total)

"""Top-H: the most probable tokens within a share of the entropy."""

from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import wide

__all__ = ["TopH"]

_MOST = 100
"""As in transformers, only so many of the most probable tokens count."""


@attrs.frozen
class TopH(Processor):
    """Keep the most probable tokens that together carry at most the share h of the entropy.

    Source: Potraghloo et al. (2025), "Top-H Decoding", arXiv 2509.02510, algorithm 1; entropy and
        probabilities are those of the 100 most probable tokens, as in transformers.
    Range: top_h in (0, 1], often 0.4; at 1 the 100 stay, but for rounding.
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Keeps: the most probable token, and the prefix of the descending order with ``-Σ p_i ln p_i <= h H``.
    Raises: ParameterError when top_h is not in its range.
    """

    NAME: ClassVar[str] = "top_h"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        nested="top_h",
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT)

    top_h: float = param(0.4, range="(0, 1]", help="h, the share of the entropy to keep.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf outside the kept prefix of each row."""
        largest, order = logits.topk(min(_MOST, logits.shape[-1]), dim=-1)
        logp = largest.to(wide(logits))
        logp = logp - logp.logsumexp(dim=-1, keepdim=True)
        p = logp.softmax(dim=-1)
        entropy = -(p * logp.clamp(min=torch.finfo(logp.dtype).min)).sum(dim=-1, keepdim=True)
        # Where p is 0 the terms become NaN, which is no smaller than anything: such tokens are dropped.
        kept = (-p * p.log()).cumsum(dim=-1) <= self.top_h * entropy
        kept[:, 0] = True
        dropped = torch.ones_like(logits, dtype=torch.bool).scatter(-1, order, ~kept)
        return logits.masked_fill(dropped, float("-inf"))

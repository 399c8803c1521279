"""Mirostat, version 1: top-k with a k that keeps the surprise of the text near a target."""

import math
from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Phase, Place, Scope
from torch import Tensor

from decodekit_processors._common import possible, wide
from decodekit_processors._mirostat import Mirostat

__all__ = ["MirostatV1"]

_HEAD = 100
"""m, how many of the most probable tokens the exponent is estimated from."""


@attrs.frozen
class MirostatV1(Mirostat):
    """Keep k tokens, where k follows from μ and from how steeply the probabilities fall (Zipf's exponent).

    After each token μ moves against the error of its surprise. The surprise is that among the kept tokens,
    as in llama.cpp; the authors' code takes it before the cut. k is rounded down; tokens tied with
    the k-th all stay.

    Source: Basu et al. (2021), "Mirostat", arXiv 2007.14966, algorithm 1.
    Range: tau in (0, inf), in bits, often 3 to 5; eta in (0, 1], often 0.1. It begins with μ = 2 tau.
    Shape: logits [B, V] -> [B, V]; computed in float32 or better.
    Keeps: the ``k = (ε 2^μ / (1 - N^-ε))^(1/s)`` most probable of N possible tokens, k in [1, N];
        ``ε = s - 1``, and s is the least-squares slope of ``ln p`` over ``ln rank`` among the first 100.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "mirostat_v1"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT, rival="surprise")

    def process(self, logits: Tensor, history: History, states: list[float]) -> Tensor:
        """Return the logits with -inf below the k-th largest of each row."""
        descending = logits.to(wide(logits)).sort(dim=-1, descending=True).values
        count = possible(logits).sum(dim=-1, keepdim=True)
        mu = descending.new_tensor(states)[:, None]
        k = _cutoff(_exponent(descending[:, :_HEAD]), mu, count)
        smallest_kept = descending.gather(-1, k - 1)
        return logits.masked_fill(logits < smallest_kept, float("-inf"))


def _exponent(head: Tensor) -> Tensor:
    """Zipf's exponent s [B, 1] of sorted logits, at least a trace above 0, which a uniform row has."""
    rank = torch.arange(1, head.shape[-1], dtype=head.dtype, device=head.device)
    pairs = possible(head[:, 1:])
    t = ((rank + 1) / rank).log() * pairs
    b = torch.where(pairs, head[:, :-1] - head[:, 1:], 0)
    return ((t * b).sum(-1, keepdim=True) / (t * t).sum(-1, keepdim=True).clamp(min=1e-6)).clamp(min=1e-6)


def _cutoff(s: Tensor, mu: Tensor, count: Tensor) -> Tensor:
    """k, int64 [B, 1] in [1, N]; in logarithms, where ``ε / (1 - N^-ε)`` is ``1 / ln N`` at ε = 0."""
    epsilon, log_n = s - 1, count.clamp(min=2).to(s.dtype).log()
    ratio = torch.where(epsilon.abs() < 1e-9, 1 / log_n, -epsilon / torch.expm1(-epsilon * log_n))
    k = ((ratio.log() + mu * math.log(2)) / s).exp()
    return torch.minimum(k, count).clamp(min=1).long()

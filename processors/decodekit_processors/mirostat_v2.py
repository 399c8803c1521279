"""Mirostat, version 2: no token more surprising than μ, which follows the surprise of the text."""

import math
from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Phase, Place, Scope
from torch import Tensor

from decodekit_processors._common import log_probabilities
from decodekit_processors._mirostat import Mirostat

__all__ = ["MirostatV2"]


@attrs.frozen
class MirostatV2(Mirostat):
    """Keep the tokens with a surprise of at most μ bits; after each token μ moves against its error.

    The mean surprise of n tokens is then within ``|μ_0 - μ_n| / (eta n)`` of tau. The surprise that
    steers is that among the kept tokens. When all are above μ, those tied as the most probable stay.

    Source: Basu et al. (2021), "Mirostat", arXiv 2007.14966; version 2 of the authors' code, as in llama.cpp.
    Range: tau in (0, inf), in bits, often 3 to 5; eta in (0, 1], often 0.1. It begins with μ = 2 tau.
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Keeps: ``-log2 p_i <= max(μ, -log2 max(p))``.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "mirostat_v2"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        idempotent=True,
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT, rival="surprise")

    def process(self, logits: Tensor, history: History, states: list[float]) -> Tensor:
        """Return the logits with -inf where a token is too surprising."""
        surprise = -log_probabilities(logits) / math.log(2)
        mu = surprise.new_tensor(states)[:, None]
        limit = torch.maximum(mu, surprise.amin(dim=-1, keepdim=True))
        return logits.masked_fill(surprise > limit, float("-inf"))

"""Eta sampling: a floor under the probabilities that sinks with the entropy."""

import math
from typing import ClassVar

import attrs
import torch
from decodekit import Cut, Head, History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import log_probabilities

__all__ = ["EtaCutoff"]


@attrs.frozen
class EtaCutoff(Processor):
    """Keep the tokens of at least probability η, which is ε where the entropy H is low, and else less.

    Source: Hewitt, Manning and Liang (2022), "Truncation Sampling as Language Model Desmoothing",
        arXiv 2210.15191, section 4.3, with α = √ε.
    Range: eta_cutoff in [0, 1), often 3e-4 to 4e-3; 0 changes nothing. min_tokens_to_keep in [1, inf).
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Keeps: ``p_i >= η = min(ε, √ε exp(-H))``, the min_tokens_to_keep most probable tokens, and what ties
        with their last.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "eta_cutoff"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        nested="-eta_cutoff",
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT)

    eta_cutoff: float = param(
        3e-4, range="[0, 1)", neutral=0.0, help="ε, the highest that the floor may be; 0 keeps all."
    )
    min_tokens_to_keep: int = param(
        1, range="[1, inf)", help="How many of the most probable tokens always stay."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf below the floor of each row."""
        logp = log_probabilities(logits)
        p = logp.exp()
        entropy = -(p * logp).nansum(dim=-1, keepdim=True)
        eta = (math.sqrt(self.eta_cutoff) * torch.exp(-entropy)).clamp(max=self.eta_cutoff)
        always = logits.topk(min(self.min_tokens_to_keep, logits.shape[-1]), dim=-1).values[:, -1:]
        return logits.masked_fill((p < eta) & (logits < always), float("-inf"))

    def cut(self, head: Head) -> Cut:
        """Where it cuts, told from the largest logits."""
        ε = self.eta_cutoff
        log_eta = (math.log(ε) / 2 - head.entropy).clamp(max=math.log(ε))
        return head.near(log_eta + head.log_total, self.min_tokens_to_keep)

"""Epsilon sampling: a floor under the probabilities."""

import math
from typing import ClassVar

import attrs
from decodekit import Cut, Head, History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import probabilities

__all__ = ["EpsilonCutoff"]


@attrs.frozen
class EpsilonCutoff(Processor):
    """Keep the tokens of at least probability ε, or else the most probable one.

    Source: Hewitt, Manning and Liang (2022), "Truncation Sampling as Language Model Desmoothing",
        arXiv 2210.15191, section 4.2.
    Range: epsilon_cutoff in [0, 1), often 3e-4 to 9e-4; 0 changes nothing. min_tokens_to_keep in [1, inf).
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Keeps: ``p_i >= ε``, the min_tokens_to_keep most probable tokens, and what ties with their last.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "epsilon_cutoff"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        idempotent=True,
        nested="-epsilon_cutoff",
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT)

    epsilon_cutoff: float = param(
        3e-4, range="[0, 1)", neutral=0.0, help="ε, the smallest probability that stays; 0 keeps all."
    )
    min_tokens_to_keep: int = param(
        1, range="[1, inf)", help="How many of the most probable tokens always stay."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf below the floor of each row."""
        p = probabilities(logits)
        always = logits.topk(min(self.min_tokens_to_keep, logits.shape[-1]), dim=-1).values[:, -1:]
        return logits.masked_fill((p < self.epsilon_cutoff) & (logits < always), float("-inf"))

    def cut(self, head: Head) -> Cut:
        """Where it cuts, told from the largest logits."""
        return head.near(math.log(self.epsilon_cutoff) + head.log_total, self.min_tokens_to_keep)

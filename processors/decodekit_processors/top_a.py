"""Top-a: a floor under the probabilities, in proportion to the square of the largest."""

import math
from typing import ClassVar

import attrs
from decodekit import Cut, Head, History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import probabilities

__all__ = ["TopA"]


@attrs.frozen
class TopA(Processor):
    """Keep the tokens with a probability of at least ``a * max(p)²``.

    A confident row is cut hard, an undecided one hardly at all. Tokens at the floor stay.

    Source: BlinkDL (2021), RWKV-LM, "The top-a sampling method" in its README.
    Range: top_a in [0, 1], often 0.2; 0 changes nothing.
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Keeps: ``p_i >= a * max(p)²``; never empty, as a and max(p) are at most 1.
    Raises: ParameterError when top_a is not in its range.
    """

    NAME: ClassVar[str] = "top_a"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        nested="-top_a",
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT)

    top_a: float = param(
        0.2, range="[0, 1]", neutral=0.0, help="a, the smallest p_i / max(p)² that stays; 0 keeps all."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf below the floor of each row."""
        p = probabilities(logits)
        floor = self.top_a * p.amax(dim=-1, keepdim=True) ** 2
        return logits.masked_fill(p < floor, float("-inf"))

    def cut(self, head: Head) -> Cut:
        """Where it cuts, told from the largest logits."""
        return head.near(math.log(self.top_a) + 2 * head.largest - head.log_total)

"""Min-p: a floor under the probabilities, in proportion to the largest."""

import math
from typing import ClassVar

import attrs
import torch
from decodekit import Cut, Head, History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

__all__ = ["MinP"]


@attrs.frozen
class MinP(Processor):
    """Keep the tokens at least ``min_p`` times as probable as the most probable one.

    Source: Nguyen et al. (2024), "Turning Up the Heat: Min-p Sampling", arXiv 2407.01082, section 3.
    Range: min_p in [0, 1], often 0.05 to 0.1; 0 changes nothing. min_tokens_to_keep in [1, inf).
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Keeps: ``p_i >= min_p * max(p)``, and the min_tokens_to_keep most probable tokens.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "min_p"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        idempotent=True,
        nested="-min_p",
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT)
    BY_ROW: ClassVar[frozenset[str]] = frozenset({"min_p", "min_tokens_to_keep"})

    min_p: float = param(
        0.05, range="[0, 1]", neutral=0.0, help="The smallest p_i / max(p) that stays; 0 keeps all."
    )
    min_tokens_to_keep: int = param(
        1, range="[1, inf)", help="How many of the most probable tokens always stay."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf below the floor of each row."""
        p = torch.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        dropped = p < self.min_p * p.amax(dim=-1, keepdim=True)
        if self.min_tokens_to_keep > 1:
            # By logit: far below the largest all probabilities are 0 in float32, and tied.
            always = logits.topk(min(self.min_tokens_to_keep, logits.shape[-1]), dim=-1).indices
            dropped = dropped.scatter(-1, always, False)
        return logits.masked_fill(dropped, float("-inf"))

    def cut(self, head: Head) -> Cut:
        """Where it cuts, told from the largest logits."""
        log = self.min_p.log() if isinstance(self.min_p, Tensor) else math.log(self.min_p)
        return head.near(head.largest + log, self.min_tokens_to_keep)

"""Top-p (nucleus): the most probable tokens that together have probability p."""

from typing import ClassVar

import attrs
import numpy as np
import torch
from decodekit import Cut, Head, History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

__all__ = ["TopP"]

_SORTED_BY_NUMPY = 4
"""Bytes of the narrowest numbers that numpy can sort; it has no bfloat16."""


@attrs.frozen
class TopP(Processor):
    """Keep the smallest set of most probable tokens whose mass is at least p.

    Source: Holtzman et al. (2019), "The Curious Case of Neural Text Degeneration", arXiv 1904.09751,
        section 3.1.
    Range: top_p in [0, 1]; 1 changes nothing, 0 keeps one token. min_tokens_to_keep in [1, inf).
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Keeps: the shortest prefix of the descending order with mass >= p. Which of the tokens tied at its
        end stay is up to torch's sort, and the same as in transformers.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "top_p"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        nested="top_p",
        smallest="top_p",
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT)
    BY_ROW: ClassVar[frozenset[str]] = frozenset({"top_p", "min_tokens_to_keep"})

    top_p: float = param(
        1.0, range="[0, 1]", neutral=1.0, help="p, the probability mass to keep; 1 keeps all."
    )
    min_tokens_to_keep: int = param(
        1, range="[1, inf)", help="How many of the most probable tokens always stay."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf outside the nucleus of each row."""
        if self.top_p == 1:
            return logits
        if not logits.is_cpu or logits.dtype.itemsize < _SORTED_BY_NUMPY:
            return self._by_place(logits)
        ascending = torch.from_numpy(np.sort(logits.numpy(), axis=-1))  # in a third of torch's time
        first = self._tail(ascending).sum(dim=-1, keepdim=True)
        last_kept, next_one = (ascending.gather(-1, (first - back).clamp(min=0)) for back in (0, 1))
        result = logits.masked_fill(logits < last_kept, float("-inf"))
        tied = ((last_kept == next_one) & (first > 0)).squeeze(-1)
        if tied.any():
            result[tied] = self._by_place(logits[tied])
        return result

    def _by_place(self, logits: Tensor) -> Tensor:
        """The nucleus where it matters which of two tied tokens is which."""
        ascending, index = torch.sort(logits, dim=-1)
        tail = self._tail(ascending)
        return logits.masked_fill(tail.scatter(-1, index, tail), float("-inf"))

    def _tail(self, ascending: Tensor) -> Tensor:
        """bool [B, V]: which of the sorted logits are outside; they come first."""
        p = torch.softmax(ascending, dim=-1, dtype=torch.promote_types(ascending.dtype, torch.float32))
        tail = p.cumsum(dim=-1) <= 1 - self.top_p
        tail[:, -self.min_tokens_to_keep :] = False
        return tail

    def cut(self, head: Head) -> Cut:
        """Where it cuts, told from the largest logits."""
        return head.mass(self.top_p, self.min_tokens_to_keep)

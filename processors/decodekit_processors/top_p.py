"""Top-p (nucleus): the most probable tokens that together have probability p."""

from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Processor, param
from torch import Tensor

__all__ = ["TopP"]

_PREFIX = 256
"""How many of the largest logits are looked at first; sorting a row of 49,152 takes 18 times as long."""
_MARGIN = 1e-4
"""A mass this near to p may fall on either side in float32; a hundred times the error of the sums."""


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
    )

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
        # Elsewhere a sort costs less than asking the device which rows are still open.
        if logits.is_cpu and logits.shape[-1] > _PREFIX:
            return self._by_prefix(logits)
        return self._by_sort(logits)

    def _by_sort(self, logits: Tensor) -> Tensor:
        ascending, index = torch.sort(logits, dim=-1)
        tail = _softmax(ascending).cumsum(dim=-1) <= 1 - self.top_p
        tail[:, -self.min_tokens_to_keep :] = False
        return logits.masked_fill(tail.scatter(-1, index, tail), float("-inf"))

    def _by_prefix(self, logits: Tensor) -> Tensor:
        """The same set as `_by_sort`, which is left with the rows that the largest logits don't settle."""
        largest, index = logits.topk(_PREFIX, dim=-1)
        p = _softmax(logits).gather(-1, index)
        before = p.cumsum(dim=-1) - p  # the mass of all tokens above each one
        size = (before < self.top_p).sum(dim=-1, keepdim=True).clamp(min=self.min_tokens_to_keep)
        inside = size.clamp(max=_PREFIX - 1)
        last, next_one = largest.gather(-1, inside - 1), largest.gather(-1, inside)
        clear = (before - self.top_p).abs().amin(dim=-1, keepdim=True) > _MARGIN
        settled = (clear & (size == inside) & (last > next_one)).squeeze(-1)
        result = logits.masked_fill(logits < last, float("-inf"))
        if not settled.all():
            result[~settled] = self._by_sort(logits[~settled])
        return result


def _softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))

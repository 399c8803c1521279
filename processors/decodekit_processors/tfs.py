"""Tail-free sampling: cut where the sorted probabilities stop bending."""

from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import possible, probabilities

__all__ = ["TailFree"]


@attrs.frozen
class TailFree(Processor):
    """Keep the tokens before the flat tail of the sorted probabilities.

    The bend at a token is the absolute second difference of the sorted probabilities, centred on it.
    The most probable token always stays, and the last one, which has no bend, goes. A row of fewer
    than three possible tokens, or without any bend, has no tail and stays as it is. Only possible
    tokens are looked at: elsewhere the padding of a vocabulary adds a bend of its own.
    Which of the tokens tied at the cut stay: those of the lowest index.

    Source: Phenix and Egan (2019), "Tail Free Sampling", trentbrick.github.io/Tail-Free-Sampling.
    Range: tfs in [0, 1], often 0.95; 1 changes nothing, 0 keeps the first token and those that tie on.
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Keeps: the tokens up to which the bends make no more than a share tfs of their sum.
    Raises: ParameterError when tfs is not in its range.
    """

    NAME: ClassVar[str] = "tfs"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        nested="tfs",
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT)

    tfs: float = param(
        0.95, range="[0, 1]", neutral=1.0, help="z, the share of the bends to keep; 1 keeps all."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf in the tail of each row."""
        if self.tfs == 1 or logits.shape[-1] < 3:
            return logits
        descending, index = torch.sort(logits, dim=-1, descending=True, stable=True)
        p = probabilities(descending)
        bends = p.diff(dim=-1).diff(dim=-1).abs() * possible(descending[:, 2:])
        total = bends.sum(dim=-1, keepdim=True)
        flat = bends.cumsum(dim=-1) > self.tfs * total
        tail = torch.cat([torch.zeros_like(total, dtype=torch.bool), flat, total > 0], dim=-1)
        return logits.masked_fill(tail.scatter(-1, index, tail), float("-inf"))

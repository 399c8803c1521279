"""Which tokens would repeat an n-gram of the history."""

import torch
from torch import Tensor

from decodekit_processors._common import columns

__all__ = ["forbid_all"]


def forbid_all(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the logits with -inf for the ids int64 [B, D]; below 0 and beyond the logits they name none."""
    vocab_size = logits.shape[-1]
    more = torch.nn.functional.pad(logits, (0, 1))
    return more.scatter_(1, columns(ids, vocab_size), float("-inf"))[:, :vocab_size]

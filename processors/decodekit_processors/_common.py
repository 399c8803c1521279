"""What several processors need: probabilities in a precision that is good enough, and counts."""

import torch
from decodekit import History
from torch import Tensor

__all__ = ["columns", "generated_counts", "log_probabilities", "lowered", "possible", "probabilities", "wide"]


def wide(logits: Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or float64 for float64 logits."""
    return torch.promote_types(logits.dtype, torch.float32)


def probabilities(logits: Tensor) -> Tensor:
    """Probabilities [B, V] in float32 or better."""
    return torch.softmax(logits, dim=-1, dtype=wide(logits))


def log_probabilities(logits: Tensor) -> Tensor:
    """Natural logarithms of the probabilities [B, V], in float32 or better."""
    return torch.log_softmax(logits, dim=-1, dtype=wide(logits))


def possible(logits: Tensor) -> Tensor:
    """bool [B, V]: the tokens that nothing has forbidden so far."""
    return logits != -torch.inf


def columns(ids: Tensor, vocab_size: int) -> Tensor:
    """The ids [B, D], with those that name no logit (what fills up, or beyond the vocabulary) as V."""
    return ids.masked_fill((ids < 0) | (ids >= vocab_size), vocab_size)


def generated_counts(logits: Tensor, history: History) -> Tensor:
    """How often each token was generated: [B, V] in float32 or better; the prompt doesn't count."""
    ids, counts = history.generated_counts()
    vocab_size = logits.shape[-1]
    every = torch.zeros(len(logits), vocab_size + 1, dtype=wide(logits), device=logits.device)
    return every.scatter_add_(1, columns(ids, vocab_size), counts.to(every.dtype))[:, :vocab_size]


def lowered(logits: Tensor, ids: Tensor, by: Tensor) -> Tensor:
    """The logits [B, V] less ``by`` [B, D] at the ids [B, D], each once; below 0 they name none."""
    more = torch.nn.functional.pad(logits.to(wide(logits)), (0, 1))
    ids = columns(ids, logits.shape[-1])
    return more.scatter_add_(1, ids, -by)[:, : logits.shape[-1]].to(logits.dtype)

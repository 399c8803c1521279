"""What several processors need: probabilities in a precision that is good enough, and counts."""

import torch
from decodekit import History
from torch import Tensor

__all__ = ["generated_counts", "log_probabilities", "possible", "probabilities", "wide"]


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


def generated_counts(logits: Tensor, history: History) -> Tensor:
    """How often each token was generated: [B, V] in float32 or better; the prompt doesn't count."""
    # What is not counted, and ids beyond the logits, fall into one more column that is cut off again.
    vocab_size = logits.shape[-1]
    ids = torch.where(history.generated_mask, history.tokens.clamp(max=vocab_size), vocab_size)
    counts = torch.zeros(len(logits), vocab_size + 1, dtype=wide(logits), device=logits.device)
    return counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=counts.dtype))[:, :vocab_size]

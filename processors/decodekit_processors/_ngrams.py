"""Which tokens would repeat an n-gram of the history."""

import torch
from decodekit import History
from torch import Tensor

__all__ = ["forbid_repeats"]


def forbid_repeats(logits: Tensor, history: History, n: int, last: Tensor) -> Tensor:
    """Return the logits with -inf for each token that would complete an n-gram a second time.

    Args:
        logits: [B, V].
        history: of the B rows.
        n: the length of the n-grams, at least 1; with 1 every token counts that occurred.
        last: bool [B, T], at which columns an n-gram may end to count.
    """
    tokens = history.tokens
    width = tokens.shape[1]
    if width < n:
        return logits
    windows = tokens.unfold(1, n, 1)  # [B, T - n + 1, n]
    begun = tokens[:, width - n + 1 :]
    complete = history.mask[:, : width - n + 1] & last[:, n - 1 :]
    repeats = (windows[..., :-1] == begun[:, None]).all(dim=-1) & complete
    # What is no repeat, and ids beyond the logits, fall into one more column that is cut off again.
    vocab_size = logits.shape[-1]
    ids = torch.where(repeats, windows[..., -1].clamp(max=vocab_size), vocab_size)
    forbidden = torch.zeros(len(logits), vocab_size + 1, dtype=torch.bool, device=logits.device)
    return logits.masked_fill(forbidden.scatter_(1, ids, True)[:, :vocab_size], float("-inf"))

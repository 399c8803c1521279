"""Refuses logits and scores that hold NaN or +inf, or leave no token at all."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from decodekit.chain import Chain
from decodekit.errors import EmptySupportError, NonFiniteLogitsError
from decodekit.row import Row
from decodekit.scores import Scores

__all__ = ["all_finite", "check_raw", "check_scores"]


def check_raw(chains: Sequence[Chain], rows: Sequence[Row], logits: Tensor) -> None:
    """Raise `NonFiniteLogitsError` for what a model gave, unless a chain cleans it.

    Args:
        chains: of the call; none, when nothing is processed.
        rows: the B rows.
        logits: [B, V] or [B, K + 1, V].
    """
    peaks = logits.amax(-1)
    if all_finite(peaks):
        return
    finite = peaks.isfinite().view(len(rows), -1).all(-1)
    damaged = [row for row, fine in zip(rows, finite.tolist(), strict=True) if not fine]
    refused = [row for row in damaged if not (chains and chains[row.chain].cleans)]
    if not refused:
        return
    message = (
        f"the model's logits of {_place(refused[0])} hold NaN or +inf, or allow no token at all; "
        "load the model in a wider dtype (dtype='float32'), or look for damaged weights"
    )
    raise NonFiniteLogitsError(message)


def check_scores(chains: Sequence[Chain], rows: Sequence[Row], scores: Scores) -> None:
    """Raise for rows that their chains have left without any token, or with something else than numbers.

    Raises:
        EmptySupportError, NonFiniteLogitsError: they name the chain and the row.
    """
    peak = scores.peaks()
    if all_finite(peak):
        return
    position = int((~peak.isfinite()).nonzero()[0])
    row, chain = rows[position], chains[rows[position].chain]
    if float(peak[position]) == -torch.inf:
        message = f"the chain {chain} leaves no token for {_place(row)}; loosen one of its processors"
        raise EmptySupportError(message)
    message = (
        f"the chain {chain} gave NaN or +inf for {_place(row)}: a processor left no token to one that "
        "normalises (loosen it), or gives such numbers itself (decodekit.testing.check_processor says which)"
    )
    raise NonFiniteLogitsError(message)


def all_finite(peaks: Tensor) -> bool:
    """Whether all of a few numbers are finite; in Python, because it takes one operation of torch."""
    return all(map(math.isfinite, (peaks if peaks.dim() == 1 else peaks.flatten()).tolist()))


def _place(row: Row) -> str:
    return f"row {row.slot} (prompt {row.prompt}) at step {len(row.tokens)}"

"""Sequences of tokens, and which of them the next token would complete."""

from collections.abc import Mapping

import attrs
import torch
from decodekit import History
from torch import Tensor

__all__ = ["Endings", "bias_of", "endings"]


@attrs.frozen(eq=False)
class Endings:
    """Sequences of one length: K tokens that must stand before, and the token that a bias is for.

    Attributes:
        prefixes: int64 [N, K].
        last: int64 [N].
        biases: float64 [N].
    """

    prefixes: Tensor
    last: Tensor
    biases: Tensor


def endings(sequences: Mapping[tuple[int, ...], float]) -> tuple[Endings, ...]:
    """The sequences, each with at least one token, and their biases, by length."""
    by_length: dict[int, list[tuple[int, ...]]] = {}
    for sequence in sequences:
        by_length.setdefault(len(sequence), []).append(sequence)
    return tuple(
        Endings(
            torch.tensor([sequence[:-1] for sequence in group], dtype=torch.long),
            torch.tensor([sequence[-1] for sequence in group]),
            torch.tensor([sequences[sequence] for sequence in group], dtype=torch.float64),
        )
        for group in by_length.values()
    )


def bias_of(logits: Tensor, history: History, groups: tuple[Endings, ...]) -> Tensor:
    """What to add to the logits, [B, V]: the biases of all sequences that a token would complete."""
    bias = torch.zeros_like(logits)
    for group in groups:
        prefixes, last, biases = (
            tensor.to(logits.device) for tensor in (group.prefixes, group.last, group.biases)
        )
        length, width = prefixes.shape[1], history.tokens.shape[1]
        if length > width:
            continue
        begun = history.tokens[:, None, width - length :] == prefixes
        completes = begun.all(dim=-1) & (history.lengths >= length)[:, None]
        # Not by a product: a bias of -inf times 0 would be NaN.
        bias.index_add_(1, last, torch.where(completes, biases, 0.0).to(bias.dtype))
    return bias

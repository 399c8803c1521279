"""Draws for the rows of a batch, each with the noise of its own position."""

from collections.abc import Sequence

import torch
from torch import Tensor

from decodekit.randomness import Noise, Purpose
from decodekit.row import Row
from decodekit.scores import Scores

__all__ = ["draw", "positions"]


def draw(
    noise: Noise, rows: Sequence[Row], scores: Scores, offset: int | Sequence[int], purpose: Purpose
) -> Tensor:
    """A token of every row, int64 [B], from their scores; rows at temperature 0 take the argmax.

    Args:
        noise: of the call.
        rows: the B rows.
        scores: unnormalised log-probabilities of the rows.
        offset: how many hypothetical tokens stand before, one number or one for each row.
        purpose: what the draws are for.
    """
    greedy = [row.greedy for row in rows]
    if all(greedy):
        return scores.argmax()
    device = scores.parts[0].logits.device
    places = positions(rows, offset, device)
    if purpose is Purpose.DRAFT:
        # A rule may judge a draft by tokens behind the one it rejects: the next draft needs new noise.
        places = places + (positions(rows, 0, device) << 32)
    tokens = scores.draw(noise.field(rows, places, scores.vocab_size, purpose))
    if any(greedy):
        tokens = torch.where(torch.tensor(greedy, device=tokens.device), scores.argmax(), tokens)
    return tokens


def positions(rows: Sequence[Row], offset: int | Sequence[int], device: torch.device) -> Tensor:
    """The absolute position of each row's next token, int64 [B], ``offset`` further on."""
    offsets = [offset] * len(rows) if isinstance(offset, int) else offset
    return torch.tensor([row.length + by for row, by in zip(rows, offsets, strict=True)], device=device)

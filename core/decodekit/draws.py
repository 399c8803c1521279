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
    places = positions(rows, offset)
    if purpose is Purpose.DRAFT:
        # A rule may judge a draft by tokens behind the one it rejects: the next draft needs new noise.
        places = [place + (row.length << 32) for place, row in zip(places, rows, strict=True)]
    tokens = scores.draw(noise.field(rows, places, scores.vocab_size, purpose, scores.device))
    if any(greedy):
        tokens = torch.where(torch.tensor(greedy, device=tokens.device), scores.argmax(), tokens)
    return tokens


def positions(rows: Sequence[Row], offset: int | Sequence[int]) -> list[int]:
    """The absolute position of each row's next token, ``offset`` further on."""
    if isinstance(offset, int):
        return [row.length + offset for row in rows]
    return [row.length + by for row, by in zip(rows, offset, strict=True)]

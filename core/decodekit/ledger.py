"""The committed tokens of the live rows, in memory that is not copied at every step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from decodekit.history import History, shift_right
from decodekit.index import RowIndex, View

__all__ = ["Ledger"]

ROOM = 256
"""New tokens for which there is memory at first; a limit that nobody means to reach must not cost any."""


class Ledger:
    """A growing history; the values that it hands out never change."""

    def __init__(self, prompts: Sequence[Sequence[int]], pad: int, room: int, device: torch.device) -> None:
        """Start with the prompts; ``room`` is the most tokens that a row may get."""
        start = History.of(prompts)
        self._width = start.tokens.shape[1]
        self._tokens = start.tokens.new_empty(len(prompts), self._width + min(room, ROOM)).to(device)
        self._tokens[:, : self._width] = start.tokens.masked_fill(~start.mask, pad)
        self._pads = start.pads.to(device)
        self._prompt_lengths = start.prompt_lengths.to(device)
        self._pad = pad
        self._rows = [RowIndex(prompt, len(prompt)) for prompt in prompts]

    @property
    def history(self) -> History:
        """The tokens as they stand."""
        views = [View(row, len(row.tokens)) for row in self._rows]
        return History(self._tokens[:, : self._width], self._pads, self._prompt_lengths, views=views)

    def append(self, blocks: Sequence[Sequence[int]]) -> None:
        """Add the block of each row; blocks may be ragged or empty."""
        for row, block in zip(self._rows, blocks, strict=True):
            row.append(block)
        count = max(map(len, blocks), default=0)
        if self._width + count > self._tokens.shape[1]:
            grown = self._tokens.new_empty(len(blocks), 2 * (self._width + count))
            grown[:, : self._width] = self._tokens[:, : self._width]
            self._tokens = grown
        short = [count - len(block) for block in blocks]
        padded = [[*block] + [self._pad] * lack for block, lack in zip(blocks, short, strict=True)]
        self._tokens[:, self._width : self._width + count] = self._tensor(padded)
        self._width += count
        if any(short):
            self._shift(self._tensor(short))

    def _shift(self, short: Tensor) -> None:
        self._tokens = shift_right(self._tokens, short, 1)
        self._pads = self._pads + short
        columns = torch.arange(self._tokens.shape[1], device=short.device)
        self._tokens.masked_fill_(columns < self._pads[:, None], self._pad)

    def select(self, rows: Sequence[int]) -> None:
        """Keep the given rows, in that order; a row may be named more than once."""
        index = self._tensor(list(rows))
        self._tokens = self._tokens[index]
        self._pads, self._prompt_lengths = self._pads[index], self._prompt_lengths[index]
        taken: set[int] = set()
        chosen = []
        for row in rows:
            chosen.append(self._rows[row].fork() if row in taken else self._rows[row])
            taken.add(row)
        self._rows = chosen

    def join(self, other: "Ledger") -> None:
        """Take the rows of another ledger in below; columns that are padding in every row are dropped."""
        both = (self, other)
        width = max(int((one._width - one._pads).max()) for one in both)
        tokens = self._tokens.new_full((len(self._rows) + len(other._rows), width + ROOM), self._pad)
        for one, lines in zip(both, (slice(len(self._rows)), slice(len(self._rows), None)), strict=True):
            held = min(width, one._width)
            tokens[lines, width - held : width] = one._tokens[:, one._width - held : one._width]
        self._pads = torch.cat([one._pads + (width - one._width) for one in both])
        self._prompt_lengths = torch.cat([one._prompt_lengths for one in both])
        self._rows = [*self._rows, *other._rows]
        self._tokens, self._width = tokens, width

    def _tensor(self, values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._tokens.device)

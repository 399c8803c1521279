"""The committed tokens of the live rows, in memory that is not copied at every step.

What is appended is written down when somebody asks for the history: a chain that looks at none pays nothing.
"""

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from decodekit.history import History, shift_right
from decodekit.index import RowIndex, View
from decodekit.row import Row

__all__ = ["Ledger"]

ROOM = 256
"""New tokens for which there is memory at first; a limit that nobody means to reach must not cost any."""

_MOST = 32
"""Tokens of a row that wait to be written down; each fork copies them."""


class Ledger:
    """A growing history; the values that it hands out never change.

    Attributes:
        moves: how often it has changed.
        device: where the tokens stand.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], pad: int, room: int, device: torch.device) -> None:
        """Start with the prompts; ``room`` is the most tokens that a row may get."""
        self.moves = 0
        self.device = device
        start = History.of(prompts)
        self._width = start.tokens.shape[1]
        self._tokens = start.tokens.new_empty(len(prompts), self._width + min(room, ROOM)).to(device)
        self._tokens[:, : self._width] = start.tokens.masked_fill(~start.mask, pad)
        self._pads = start.pads.to(device)
        self._prompt_lengths = start.prompt_lengths.to(device)
        self._pad = pad
        self._rows = [RowIndex(prompt, len(prompt)) for prompt in prompts]
        self._order = [*range(len(prompts))]  # which written row each row goes on from
        self._pending: list[list[int]] = [[] for _ in prompts]

    @property
    def history(self) -> History:
        """The tokens as they stand."""
        self._write()
        views = [View(row, len(row.tokens)) for row in self._rows]
        return History(self._tokens[:, : self._width], self._pads, self._prompt_lengths, views=views)

    def pinned(self, rows: Sequence[Row]) -> Callable[[], History]:
        """Gives the tokens of the rows as they stand now, whenever it is asked."""
        moves, counts = self.moves, [len(row.tokens) for row in rows]

        def history() -> History:
            if self.moves == moves:
                found = self.history
            else:
                tokens = [row.tokens[:count] for row, count in zip(rows, counts, strict=True)]
                found = History.of([row.prompt_tokens for row in rows], tokens).to(self.device)
            slots = [row.slot for row in rows]
            if slots == list(range(len(slots))):
                return found
            return attrs.evolve(found, slots=self._tensor(slots))

        return history

    def append(self, blocks: Sequence[Sequence[int]]) -> None:
        """Add the block of each row; blocks may be ragged or empty."""
        self.moves += 1
        for pending, block in zip(self._pending, blocks, strict=True):
            pending += block

    def select(self, rows: Sequence[int]) -> None:
        """Keep the given rows, in that order; a row may be named more than once."""
        self.moves += 1
        self._order = [self._order[row] for row in rows]
        self._pending = [[*self._pending[row]] for row in rows]
        if any(len(pending) > _MOST for pending in self._pending):
            self._write()

    def _write(self) -> None:
        """Write down what has come since the last time."""
        if self._order != [*range(len(self._rows))]:
            self._reorder()
        blocks, self._pending = self._pending, [[] for _ in self._pending]
        count = max(map(len, blocks), default=0)
        if not count:
            return
        for row, block in zip(self._rows, blocks, strict=True):
            row.append(block)
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

    def _reorder(self) -> None:
        index = self._tensor(self._order)
        self._tokens = self._tokens[index]
        self._pads, self._prompt_lengths = self._pads[index], self._prompt_lengths[index]
        taken: set[int] = set()
        chosen = []
        for row in self._order:
            chosen.append(self._rows[row].fork() if row in taken else self._rows[row])
            taken.add(row)
        self._rows, self._order = chosen, [*range(len(chosen))]

    def _shift(self, short: Tensor) -> None:
        self._tokens = shift_right(self._tokens, short, 1)
        self._pads = self._pads + short
        columns = torch.arange(self._tokens.shape[1], device=short.device)
        self._tokens.masked_fill_(columns < self._pads[:, None], self._pad)

    def join(self, other: "Ledger") -> None:
        """Take the rows of another ledger in below; columns that are padding in every row are dropped."""
        self._write()
        other._write()
        self.moves += 1
        both = (self, other)
        width = max(int((one._width - one._pads).max()) for one in both)
        tokens = self._tokens.new_full((len(self._rows) + len(other._rows), width + ROOM), self._pad)
        for one, lines in zip(both, (slice(len(self._rows)), slice(len(self._rows), None)), strict=True):
            held = min(width, one._width)
            tokens[lines, width - held : width] = one._tokens[:, one._width - held : one._width]
        self._pads = torch.cat([one._pads + (width - one._width) for one in both])
        self._prompt_lengths = torch.cat([one._prompt_lengths for one in both])
        self._rows = [*self._rows, *other._rows]
        self._order, self._pending = [*range(len(self._rows))], [[] for _ in self._rows]
        self._tokens, self._width = tokens, width

    def _tensor(self, values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)

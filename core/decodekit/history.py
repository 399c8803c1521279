"""What a processor may know of a row: the tokens so far, and where the prompt ends."""

import functools
import math
from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from decodekit.index import View

__all__ = ["History", "no_history"]


@attrs.frozen(eq=False)
class History:
    """The tokens of a batch of rows, right-aligned; a value that nothing changes in place.

    Under a draft this is the hypothetical history: the committed tokens and the draft's prefix.

    Attributes:
        tokens: int64 [B, T]; row ``r`` holds its tokens in the last ``lengths[r]`` columns.
        pads: int64 [B]; the number of columns on the left that are not tokens.
        prompt_lengths: int64 [B]; how many of the row's tokens are its prompt.
        slots: int64 [B]; each row's place in the batch as the call began; None when all are there in order.
        views: what is known of each row's tokens already; empty where nobody has kept up.
    """

    tokens: Tensor
    pads: Tensor
    prompt_lengths: Tensor
    slots: Tensor | None = None
    views: Sequence[View] = ()

    @classmethod
    def of(
        cls, prompts: Sequence[Sequence[int]], generated: Sequence[Sequence[int]] | None = None
    ) -> "History":
        """Build a history from Python lists, e.g. in a test: one prompt (and continuation) a row."""
        generated = generated if generated is not None else [()] * len(prompts)
        rows = [[*prompt, *new] for prompt, new in zip(prompts, generated, strict=True)]
        width = max((len(row) for row in rows), default=0)
        tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows], dtype=torch.long).view(
            len(rows), width
        )
        pads = torch.tensor([width - len(row) for row in rows], dtype=torch.long)
        return cls(tokens, pads, torch.tensor([len(prompt) for prompt in prompts], dtype=torch.long))

    def to(self, device: torch.device) -> "History":
        """The same on a device; what is known of the rows stays here."""
        tokens, pads, lengths = (each.to(device) for each in (self.tokens, self.pads, self.prompt_lengths))
        return History(tokens, pads, lengths, self.slots, self.views)

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def mask(self) -> Tensor:
        """bool [B, T]: which columns are tokens of the row (the others are padding)."""
        columns = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return columns >= self.pads[:, None]

    @property
    def generated_mask(self) -> Tensor:
        """bool [B, T]: which columns are tokens that were generated, not given."""
        columns = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return columns >= (self.pads + self.prompt_lengths)[:, None]

    @property
    def lengths(self) -> Tensor:
        """int64 [B]: tokens of each row, prompt included."""
        return self.tokens.shape[1] - self.pads

    @property
    def new_lengths(self) -> Tensor:
        """int64 [B]: generated tokens of each row."""
        return self.lengths - self.prompt_lengths

    def select(self, rows: Tensor | Sequence[int]) -> "History":
        """The history of the given rows, in that order; a row may be named twice."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.tokens.device)
        slots = self.slots[index] if self.slots is not None else index
        views = [self.views[row] for row in index.tolist()] if self.views else ()
        return History(self.tokens[index], self.pads[index], self.prompt_lengths[index], slots, views)

    def append(self, blocks: Sequence[Sequence[int]]) -> "History":
        """The history after row ``r`` got the tokens ``blocks[r]`` as well; blocks may be ragged or empty."""
        width = max(map(len, blocks), default=0)
        device = self.tokens.device
        tail = torch.tensor(
            [[*block] + [0] * (width - len(block)) for block in blocks], dtype=torch.long, device=device
        )
        tokens = torch.cat([self.tokens, tail.view(len(self), width)], dim=1)
        short = torch.tensor([width - len(block) for block in blocks], dtype=torch.long, device=device)
        if len({*map(len, blocks)}) > 1:
            tokens = shift_right(tokens, short, 1)
        views = (
            [view.then(block) for view, block in zip(self.views, blocks, strict=True)] if self.views else ()
        )
        return History(tokens, self.pads + short, self.prompt_lengths, self.slots, views)

    @property
    def indexed(self) -> bool:
        """Whether what is known of the rows spares looking at all of their tokens."""
        return bool(self.views) and all(view.valid for view in self.views)

    def ids(self) -> Tensor:
        """Every token of the rows at least once, int64 [B, D]; -1 fills up."""
        if not self.indexed:
            return self.tokens.masked_fill(~self.mask, -1)
        return self._together([view.tally(0, math.inf) for view in self.views])[0]

    def prompt_ids(self) -> Tensor:
        """Every token of the prompts at least once, int64 [B, D]; -1 fills up."""
        if not self.indexed:
            return self.tokens.masked_fill(~self.mask | self.generated_mask, -1)
        return self._together([view.tally(0, view.row.prompt_length) for view in self.views])[0]

    def generated_counts(self) -> tuple[Tensor, Tensor]:
        """The generated tokens, int64 [B, D], -1 fills up; and how often each came, float32 [B, D].

        A token may stand there several times; its counts then add up.
        """
        if not self.indexed:
            return self.tokens.masked_fill(~self.generated_mask, -1), self.generated_mask.float()
        return self._together([view.tally(view.row.prompt_length, math.inf) for view in self.views])

    def followers(self, n: int, *, prompt: bool = False) -> Tensor:
        """The tokens that would complete an n-gram of the row a second time, int64 [B, D]; -1 fills up.

        Args:
            n: the length of the n-grams, at least 1; with 1 every token counts that occurred.
            prompt: count only the n-grams that end in the prompt.
        """
        if not self.indexed:
            return self._followers(n, self.mask & ~self.generated_mask if prompt else self.mask)
        if n == 1:
            return self.prompt_ids() if prompt else self.ids()
        found = [view.followers(n, view.row.prompt_length if prompt else math.inf) for view in self.views]
        width = max(map(len, found))
        filled = [[*row, *[-1] * (width - len(row))] for row in found]
        return torch.tensor(filled, dtype=torch.long, device=self.tokens.device).view(len(self), width)

    def _followers(self, n: int, last: Tensor) -> Tensor:
        """The same for all n-grams that end in the columns ``last``, bool [B, T]."""
        width = self.tokens.shape[1]
        if width < n:
            return self.tokens[:, :0]
        windows = self.tokens.unfold(1, n, 1)  # [B, T - n + 1, n]
        begun = self.tokens[:, width - n + 1 :]
        complete = self.mask[:, : width - n + 1] & last[:, n - 1 :]
        repeats = (windows[..., :-1] == begun[:, None]).all(dim=-1) & complete
        return windows[..., -1].masked_fill(~repeats, -1)

    def repeats(self, row: int, *, least: int, most: int, window: int = 0) -> dict[int, int]:
        """For each token how many of the row's last tokens it came after before, the most that agree.

        Args:
            row: which row.
            least: the fewest tokens that must agree.
            most: how many are looked at.
            window: only the last so many tokens count; 0 is all.
        """
        if self.indexed and not window:
            return self.views[row].repeats(least, most)
        backwards = self.row(row)[-window:][::-1]
        found = dict[int, int]()
        for start, length in overlaps(backwards):
            if length >= least:
                token = backwards[start - 1]
                found[token] = max(found.get(token, 0), min(length, most))
        return found

    def recent(self, row: int, count: int) -> list[int]:
        """The last tokens of a row, at most ``count``."""
        if self.indexed:
            return self.views[row].recent(count)
        return self.row(row)[-count:] if count else []

    def _together(self, tallies: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
        """The tallies of the rows side by side."""
        width = max(len(found) for found, _ in tallies)
        ids, counts = (
            np.full((len(tallies), width), -1, np.int64),
            np.zeros((len(tallies), width), np.float32),
        )
        for row, (found, often) in enumerate(tallies):
            ids[row, : len(found)], counts[row, : len(found)] = found, often
        return torch.from_numpy(ids).to(self.tokens.device), torch.from_numpy(counts).to(self.tokens.device)

    def row(self, index: int) -> list[int]:
        """The tokens of one row as a Python list, without padding."""
        tokens: list[int] = self.tokens[index, int(self.pads[index]) :].tolist()
        return tokens


@functools.lru_cache(64)
def no_history(rows: int, device: torch.device) -> History:
    """For processors that declare that they look at none."""
    return History.of([[]] * rows).to(device)


def shift_right(x: Tensor, by: Tensor, dim: int) -> Tensor:
    """Move row ``r`` of ``x`` to the right by ``by[r]`` along ``dim``; what enters on the left is stale."""
    size = x.shape[dim]
    source = (torch.arange(size, device=x.device) - by.to(x.device)[:, None]).clamp_(min=0)
    shape = [1] * x.dim()
    shape[0], shape[dim] = x.shape[0], size
    return x.gather(dim, source.view(shape).expand(x.shape))


def overlaps(tokens: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each start from 1 on, and how many tokens agree there with those from 0 on (the Z-algorithm)."""
    lengths, left, right = [0] * len(tokens), 0, 0
    for start in range(1, len(tokens)):
        length = max(0, min(right - start, lengths[start - left]))
        while start + length < len(tokens) and tokens[length] == tokens[start + length]:
            length += 1
        if start + length > right:
            left, right = start, start + length
        lengths[start] = length
        yield start, length

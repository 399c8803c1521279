"""What a processor may know of a row: the tokens so far, and where the prompt ends."""

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

__all__ = ["History"]


@attrs.frozen(eq=False)
class History:
    """The tokens of a batch of rows, right-aligned; a value that nothing changes in place.

    Under a draft this is the hypothetical history: the committed tokens and the draft's prefix.

    Attributes:
        tokens: int64 [B, T]; row ``r`` holds its tokens in the last ``lengths[r]`` columns.
        pads: int64 [B]; the number of columns on the left that are not tokens.
        prompt_lengths: int64 [B]; how many of the row's tokens are its prompt.
        slots: int64 [B]; each row's place in the batch as the call began; None when all are there in order.
    """

    tokens: Tensor
    pads: Tensor
    prompt_lengths: Tensor
    slots: Tensor | None = None

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
        return History(self.tokens[index], self.pads[index], self.prompt_lengths[index], slots)

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
        return History(tokens, self.pads + short, self.prompt_lengths, self.slots)

    def row(self, index: int) -> list[int]:
        """The tokens of one row as a Python list, without padding."""
        tokens: list[int] = self.tokens[index, int(self.pads[index]) :].tolist()
        return tokens


def shift_right(x: Tensor, by: Tensor, dim: int) -> Tensor:
    """Move row ``r`` of ``x`` to the right by ``by[r]`` along ``dim``; what enters on the left is stale."""
    size = x.shape[dim]
    source = (torch.arange(size, device=x.device) - by.to(x.device)[:, None]).clamp_(min=0)
    shape = [1] * x.dim()
    shape[0], shape[dim] = x.shape[0], size
    return x.gather(dim, source.view(shape).expand(x.shape))

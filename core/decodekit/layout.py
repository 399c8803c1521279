"""Positions and mask of a session's columns, made once for many passes, so that a pass takes slices."""

import attrs
import torch
from torch import Tensor

__all__ = ["Layout"]

_AHEAD = 64
"""Columns beyond the next pass that are made at once."""


@attrs.frozen(eq=False)
class Layout:
    """The columns while each row has the same padding.

    Attributes:
        pads: how many columns on the left of each row are padding.
        size: for how many columns this is.
        places: int64 [B, size], each column's position in its row.
        mask: int64 [B, size], which columns are the row's; None when all are: kernels are faster without.
    """

    pads: list[int]
    size: int
    places: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, pads: list[int], stop: int, device: torch.device) -> "Layout":
        """That of rows with some padding, for the columns before ``stop`` and some more."""
        size = stop + _AHEAD
        columns = torch.arange(size, device=device).expand(len(pads), -1)
        if not any(pads):
            return cls(pads, size, columns, None)
        left = torch.tensor(pads, device=device)[:, None]
        return cls(pads, size, (columns - left).clamp_(min=0), (columns >= left).long())

    def fits(self, pads: list[int], stop: int) -> bool:
        """Whether it is of this list of paddings (which nobody changes in place), and long enough."""
        return self.pads is pads and self.size >= stop

    def slices(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Positions int64 [B, stop - start] of new columns, and the mask int64 [B, stop] of all."""
        places = self.places[:, start:stop]
        if self.mask is None:
            return places, None
        return places.contiguous(), self.mask[:, :stop]  # strides would tell a compiled model how many follow

"""What a forward pass gives."""

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Asked", "Forward", "by_token"]


@attrs.frozen
class Asked:
    """What a pass is to give: the last ``keep`` columns of logits, hidden states, attentions."""

    keep: int
    hidden: bool
    attentions: bool


@attrs.frozen(eq=False)
class Forward:
    """What one forward pass gave.

    Attributes:
        logits: [B, n, V] in the model's dtype, for the last ``n`` columns of what was fed.
        hidden_states: per layer [B, n, D], when they were asked for.
        attentions: per layer [B, n, H, K], when they were asked for: key ``k`` is the row's k-th token.
        cross_attentions: per layer [B, n, H, S], of an encoder-decoder model.
    """

    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Forward":
        lists = (self.hidden_states, self.attentions, self.cross_attentions)
        return Forward(
            change(self.logits), *(tuple(map(change, layers)) if layers else layers for layers in lists)
        )

    def at(self, index: Tensor) -> "Forward":
        """The columns int64 [B, m] of each row."""
        rows = torch.arange(index.shape[0], device=index.device)[:, None]
        return self._map(lambda values: values[rows, index])

    def tail(self, count: int) -> "Forward":
        """The last ``count`` columns."""
        return self._map(lambda values: values[:, -count:])

    @staticmethod
    def join(first: "Forward", second: "Forward") -> "Forward":
        """The columns of both, side by side."""
        lists = (
            _join(getattr(first, name), getattr(second, name))
            for name in ("hidden_states", "attentions", "cross_attentions")
        )
        return Forward(torch.cat([first.logits, second.logits], dim=1), *lists)

    def select(self, rows: Tensor) -> "Forward":
        """The given rows, in that order."""
        return self._map(lambda values: values[rows])


def _join(first: Sequence[Tensor] | None, second: Sequence[Tensor] | None) -> tuple[Tensor, ...] | None:
    """Side by side; the later columns may see further keys."""
    if not first or not second:
        return None
    wider = [max(one.shape[-1], other.shape[-1]) for one, other in zip(first, second, strict=True)]
    return tuple(
        torch.cat([pad(part, (0, width - part.shape[-1])) for part in pair], dim=1)
        for pair, width in zip(zip(first, second, strict=True), wider, strict=True)
    )


def by_token(attentions: Tensor, width: int, pads: Sequence[int]) -> Tensor:
    """Attentions with the keys of each row in the order of its tokens.

    Args:
        attentions: [B, H, n, slots], over the slots of a cache.
        width: slots in use.
        pads: of each row, how many slots on the left are padding.

    Returns:
        [B, n, H, width]: key ``k`` is the row's k-th token; zero beyond its last.
    """
    keys = attentions[..., :width] if attentions.shape[-1] > width else attentions
    keys = pad(keys, (width - keys.shape[-1], 0)).transpose(1, 2)
    if not any(pads):
        return keys
    left = torch.tensor(pads, device=keys.device)[:, None]
    source = torch.arange(width, device=keys.device) + left
    shifted = keys.gather(-1, source.clamp(max=width - 1)[:, None, None].expand(keys.shape))
    return shifted.masked_fill((source >= width)[:, None, None], 0)

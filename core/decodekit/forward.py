"""What a forward pass gives."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Asked", "Forward"]


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

    @classmethod
    def of(cls, output: Any, asked: Asked, width: int, pads: Sequence[int], *, prefixed: bool) -> "Forward":
        """What was asked for of a model's output.

        Args:
            output: of transformers.
            asked: ``keep`` is at most the number of columns that were fed.
            width: slots in use.
            pads: how many of them, on the left of each row, are padding.
            prefixed: whether it is an encoder-decoder model, whose outputs have names of their own.
        """
        keep = asked.keep
        logits = output.logits if output.logits.shape[1] == keep else output.logits[:, -keep:]
        if not (asked.hidden or asked.attentions):
            return cls(logits)
        prefix = "decoder_" if prefixed else ""
        hidden = output[f"{prefix}hidden_states"] if asked.hidden else None
        own = output[f"{prefix}attentions"] if asked.attentions else None
        cross = output["cross_attentions"] if asked.attentions and prefixed else None
        return cls(
            logits,
            tuple(layer[:, -keep:] for layer in hidden) if hidden else None,
            tuple(_by_token(layer[:, :, -keep:], width, pads) for layer in own) if own else None,
            tuple(layer[:, :, -keep:].transpose(1, 2) for layer in cross) if cross else None,
        )

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


def _by_token(attentions: Tensor, width: int, pads: Sequence[int]) -> Tensor:
    """[B, n, H, K] from [B, H, n, slots]: key ``k`` is the row's k-th token, whatever its slot.

    Args:
        attentions: a layer's; a static cache has more slots than are in use, a window fewer.
        width: the slots in use.
        pads: how many of them, on the left of each row, are padding.
    """
    keys = attentions[..., :width] if attentions.shape[-1] > width else attentions
    keys = pad(keys, (width - keys.shape[-1], 0)).transpose(1, 2)
    if not any(pads):
        return keys
    source = torch.arange(width, device=keys.device) + torch.tensor(pads, device=keys.device)[:, None]
    shifted = keys.gather(-1, source.clamp(max=width - 1)[:, None, None].expand(keys.shape))
    return shifted.masked_fill((source >= width)[:, None, None], 0)

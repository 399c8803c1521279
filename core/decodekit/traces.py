"""Attentions and hidden states of committed tokens, kept row by row, and put into transformers' form."""

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor
from torch.nn.functional import pad

from decodekit.forward import Forward

__all__ = ["Trace", "Traces", "join"]

Layers = tuple[Tensor, ...]


@attrs.frozen(eq=False)
class Trace:
    """What the layers said at one token of one row, or at all columns of its prompt.

    Attributes:
        hidden_states: per layer [n, D].
        attentions: per layer [n, H, K]; key ``k`` is the row's k-th token.
        cross_attentions: per layer [n, H, S].
    """

    hidden_states: Layers | None
    attentions: Layers | None
    cross_attentions: Layers | None

    @classmethod
    def of(cls, output: Forward, row: int, columns: slice = slice(None)) -> "Trace":
        """The given columns of one row of a forward pass."""
        lists = (output.hidden_states, output.attentions, output.cross_attentions)
        return cls(*(tuple(layer[row, columns] for layer in layers) if layers else None for layers in lists))


@attrs.frozen(eq=False)
class Traces:
    """transformers' form: for each step a tuple of layers.

    Attributes:
        hidden_states: [R, n, D]; the first step has the prompt's columns, each further one a single column.
        attentions: [R, H, n, K], where K are all columns so far, or those in the layer's window.
        cross_attentions: [R, H, n, S].
    """

    hidden_states: tuple[Layers, ...] | None = None
    attentions: tuple[Layers, ...] | None = None
    cross_attentions: tuple[Layers, ...] | None = None


def join(
    steps: Sequence[Sequence[Trace | None]],
    lengths: Sequence[int],
    width: int,
    windows: Sequence[int | None],
) -> Traces:
    """Put the rows of each step side by side; zeros stand for padding and for rows that have ended.

    Args:
        steps: for each step a trace of every row.
        lengths: how many tokens the prompt of each row has.
        width: columns of the prompts.
        windows: how many tokens each layer sees at most; empty where all see all.
    """
    first = next((trace for trace in steps[0] if trace is not None), None) if steps else None
    if first is None:
        return Traces()
    hidden, own, cross = [], [], []
    for number, step in enumerate(steps):
        columns = 1 if number else width
        if first.hidden_states is not None:
            hidden.append(_stack([trace.hidden_states if trace else None for trace in step], columns))
        if first.attentions is not None:
            shown = [
                _by_column(trace.attentions, length + number, width + number) if trace else None
                for trace, length in zip(step, lengths, strict=True)
            ]
            layers = _stack(shown, columns)
            own.append(
                tuple(
                    _in_window(layer, window, number)
                    for layer, window in zip(layers, windows or [None] * len(layers), strict=True)
                )
            )
        if first.cross_attentions is not None:
            layers = _stack([trace.cross_attentions if trace else None for trace in step], columns)
            cross.append(tuple(layer.transpose(1, 2) for layer in layers))
    return Traces(*(tuple(found) or None for found in (hidden, own, cross)))


def _stack(rows: Sequence[Layers | None], columns: int) -> Layers:
    """Per layer [R, columns, ...]; what a row lacks is zeros on its left."""
    like = next(row for row in rows if row is not None)
    blank = tuple(layer[:0] for layer in like)
    filled = [[_extend(layer, columns, 0) for layer in row or blank] for row in rows]
    return tuple(torch.stack(layers) for layers in zip(*filled, strict=True))


def _extend(values: Tensor, size: int, dim: int) -> Tensor:
    """Zeros in front, up to ``size`` along ``dim``."""
    missing = size - values.shape[dim]
    return pad(values, [0, 0] * (values.dim() - 1 - dim) + [missing, 0]) if missing else values


def _by_column(layers: Layers | None, length: int, width: int) -> Layers:
    """Per layer [n, H, width]: the keys of a row of ``length`` tokens, moved to the columns of its tokens."""
    return tuple(_extend(layer[..., :length], width, 2) for layer in layers or ())


def _in_window(layer: Tensor, window: int | None, step: int) -> Tensor:
    """[R, H, n, K]; a cache with a window shows a new token no more keys than that."""
    layer = layer.transpose(1, 2)
    return layer[..., -window:] if window is not None and step else layer

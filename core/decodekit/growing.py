"""A cache layer with room behind its tokens: a step writes into it, and copies nothing but a small cache."""

from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

__all__ = ["GrowingLayer", "grow", "why_not_growing"]

_ROOM = 64
_SMALL = 1 << 16
"""So many numbers are copied whole: one operation, in the place of four for what was written."""
_FEW = 1 << 14
"""So many are even joined anew at every step: one operation, in the place of three."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types here
    """Keys and values [B, H, W, D] as the first columns of tensors that have more, if they are not small.

    Whoever replaces ``keys`` or ``values`` (a selection, a rollback) need not know of the room: what is
    not the beginning of it any more gets a new one, when the next tokens come.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._keys = self._values = torch.empty(0)
        self._width = self._value_width = 0  # differ only while both are being replaced
        super().__init__()

    @classmethod
    def of(cls, layer: DynamicLayer) -> "GrowingLayer":
        """What a dynamic layer holds, which is not copied."""
        grown = cls()
        if layer.is_initialized:
            grown.lazy_initialization(layer.keys, layer.values)
            grown._keys, grown._values = layer.keys, layer.values
            grown._width, grown._value_width = layer.keys.shape[2], layer.values.shape[2]
        return grown

    @property
    def keys(self) -> Tensor | None:
        """[B, H, W, D], all that is held."""
        return _held(self._keys, self._width) if self.is_initialized else None

    @keys.setter
    def keys(self, held: Tensor | None) -> None:
        if held is not None:
            self._keys, self._width = _behind(held, self._keys), held.shape[2]

    @property
    def values(self) -> Tensor | None:
        """[B, H, W, D], all that is held."""
        return _held(self._values, self._value_width) if self.is_initialized else None

    @values.setter
    def values(self, held: Tensor | None) -> None:
        if held is not None:
            self._values, self._value_width = _behind(held, self._values), held.shape[2]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the kind of the first keys and values; nothing is held yet."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._keys, self._values, self._width = key_states[:, :, :0], value_states[:, :, :0], 0
        self._value_width = 0
        self.is_initialized = True

    def get_seq_length(self) -> int:
        """How many tokens are held."""
        return self._width if self.is_initialized else 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write keys and values [B, H, n, D] behind those held, and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        first, count = self._width, key_states.shape[2]
        sizes = self._keys.numel() + key_states.numel(), self._values.numel() + value_states.numel()
        if max(sizes) <= _FEW:
            self._keys = torch.cat([_held(self._keys, first), key_states], dim=2)
            self._values = torch.cat([_held(self._values, first), value_states], dim=2)
        else:
            keys, values = self.reserve(count)
            keys[:, :, first : first + count] = key_states
            values[:, :, first : first + count] = value_states
        self.advance(count)
        return cast("Tensor", self.keys), cast("Tensor", self.values)

    def reserve(self, count: int) -> tuple[Tensor, Tensor]:
        """The tensors [B, H, S, D] that begin with the keys and the values, with ``count`` columns to write.

        Nothing is theirs before `advance`.
        """
        needed = self._width + count
        if needed > self._keys.shape[2] or needed > self._values.shape[2]:
            self._keys = _roomy(self._keys, self._width, needed)
            self._values = _roomy(self._values, self._width, needed)
        return self._keys, self._values

    def advance(self, count: int) -> None:
        """Take the ``count`` columns over that were written behind those held."""
        self._width += count
        self._value_width += count

    def shift(self, by: Tensor) -> None:
        """Move row ``r`` to the right by ``by[r]`` columns; what enters on the left is stale."""
        if self.is_initialized:
            self._keys, self._values = (_shifted(store, by) for store in (self._keys, self._values))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the given rows, in that order; their room goes with them."""
        if self.is_initialized:
            index = beam_idx.to(self._keys.device)
            self._keys = _chosen(self._keys, index, self._width)
            self._values = _chosen(self._values, index, self._value_width)

    def reset(self) -> None:
        """Hold nothing."""
        self._width = self._value_width = 0
        self.is_initialized = False


def why_not_growing(cache: Any) -> str | None:
    """Why `grow` can't take a cache; None, if it can."""
    if type(cache) is not DynamicCache:
        return f"is a {type(cache).__name__}"
    if cache.offloading:
        return "is offloaded"
    odd = next((layer for layer in cache.layers if type(layer) not in (DynamicLayer, GrowingLayer)), None)
    return f"has layers of the kind {type(odd).__name__}, which forget tokens" if odd is not None else None


def grow(cache: DynamicCache) -> None:
    """Put growing layers that hold the same in the place of a cache's dynamic ones."""
    cache.layers = [
        layer if type(layer) is GrowingLayer else GrowingLayer.of(layer) for layer in cache.layers
    ]
    if cache.layer_class_to_replicate is not None:  # layers are made when a model first writes to them
        cache.layer_class_to_replicate = GrowingLayer


def _held(store: Tensor, width: int) -> Tensor:
    return store if store.shape[2] == width else store[:, :, :width]


def _behind(held: Tensor, store: Tensor) -> Tensor:
    """The store that ``held`` is the beginning of; ``held`` itself when it is another's."""
    same = held.data_ptr() == store.data_ptr() and held.stride() == store.stride()
    return store if same and len(held) == len(store) else held


def _roomy(held: Tensor, width: int, needed: int) -> Tensor:
    batch, heads, _, size = held.shape
    columns = -(-(needed + needed // 8) // _ROOM) * _ROOM
    store = torch.empty(batch, heads, columns, size, dtype=held.dtype, device=held.device)
    store[:, :, :width] = held[:, :, :width]
    return store


def _shifted(store: Tensor, by: Tensor) -> Tensor:
    """As `shift_right`; whole columns are copied, which a CPU does several times faster than it gathers."""
    batch, heads, columns, size = store.shape
    source = (torch.arange(columns, device=store.device) - by.to(store.device)[:, None]).clamp_(min=0)
    first = torch.arange(batch * heads, device=store.device).view(batch, heads, 1) * columns
    index = (first + source[:, None]).flatten()
    return store.reshape(batch * heads * columns, size).index_select(0, index).view(store.shape)


def _chosen(store: Tensor, index: Tensor, width: int) -> Tensor:
    """The rows that ``index`` names, with as much room."""
    if store.numel() <= _SMALL:
        return store.index_select(0, index)
    chosen = torch.empty(len(index), *store.shape[1:], dtype=store.dtype, device=store.device)
    torch.index_select(store[:, :, :width], 0, index, out=chosen[:, :, :width])
    return chosen

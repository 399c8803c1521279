"""What is compiled of a module: its forward on flat lists of tensors, and example inputs for it."""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn
from torch.export import Dim
from transformers.cache_utils import Cache

from decodekit.growing import GrowingLayer
from decodekit.kernels import Kernel, NotCompilableError

__all__ = ["Call", "Shape", "Traced", "example", "is_plain", "plain_values", "state_of"]

_SIMPLE = (bool, int, float, str, type(None))


@attrs.frozen
class Shape:
    """What a kernel is for: up to ``slots`` tokens, in one row or in more, one of a row or more."""

    slots: int
    rows: bool
    block: bool

    @property
    def example(self) -> tuple[int, int]:
        """A batch size and a number of tokens a row to trace with."""
        if self.rows and self.block:
            return 2, self.slots // 2
        return (self.slots, 1) if self.rows else (1, self.slots)


@attrs.define(eq=False)
class Call:
    """The arguments of a module, taken apart.

    Attributes:
        size: [B, n] of the pass.
        tensors: in their order, those in tuples too, but for the hidden states.
        key: the size, which tensors have one row for all, and what is neither a tensor nor a cache.
        cache: that the module writes to.
        values: in their order, but for the hidden states.
        args, kwargs: as they came.
        kernel: what runs it.
    """

    size: torch.Size
    tensors: list[Tensor]
    key: tuple[Any, ...]
    cache: Cache | None
    values: tuple[Any, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    kernel: Kernel | None = None

    @classmethod
    def of(cls, values: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Call":
        """Take arguments apart."""
        tensors: list[Tensor] = []
        others: list[Any] = []
        cache = None
        for value in values[1:]:
            if isinstance(value, Tensor):
                tensors.append(value.contiguous())
            elif isinstance(value, tuple):
                tensors += [item.contiguous() for item in value]
            elif isinstance(value, Cache):
                cache = value
            else:
                others.append(value)
        size = values[0].shape[:2]
        shared = tuple(x.shape[0] != size[0] for x in tensors)  # by all rows: positions, where none is padded
        return cls(size, tensors, (size, shared, *others), cache, values[1:], args, kwargs)

    @property
    def kinds(self) -> list[Any]:
        """What a kernel depends on beside its shape; as JSON."""
        others = self.key[2:]
        for value in others:
            if not is_plain(value):
                message = f"its layers are given a {type(value).__name__}"
                raise NotCompilableError(message)
        tensors = [[str(x.dtype), x.dim(), [] if _is_mask(x) else list(x.shape[2:])] for x in self.tensors]
        return [
            tensors,
            list(self.key[1]),
            list(others),
            [[str(x.dtype), x.shape[1], x.shape[3]] for x in self.room],
        ]

    @property
    def room(self) -> tuple[Tensor, ...]:
        """Keys and values as some layer holds them."""
        if self.cache is None:
            return ()
        held = [layer for layer in self.cache.layers if layer.is_initialized]
        return cast("GrowingLayer", held[0]).reserve(1)


def _is_mask(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.dtype is torch.bool


_COLUMNS, _ROOM = 37, 64  # of the cache, to trace with


class Traced(nn.Module):
    """What is compiled: the module's forward on flat lists of tensors."""

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self._module = (module,)  # in a tuple, or its weights would become a part of the kernel
        self._call = call
        self._seen = _Seen()  # what is assigned to itself, the exporter takes back

    @property
    def pattern(self) -> tuple[str, ...]:
        """What the module returned, as in `Kernel`."""
        return self._seen.pattern

    def forward(self, state: list[Tensor], tensors: list[Tensor], room: list[Tensor]) -> list[Tensor]:
        """The module's tensors, from its weights, the tensors of its arguments, and keys and values."""
        (module,) = self._module
        rest = iter(tensors)
        masks = [tensor for tensor in tensors if _is_mask(tensor)]
        if room and len(masks) != 1:
            message = f"its layers are given {len(masks)} masks"
            raise NotCompilableError(message)
        view = _View(room, masks[0].shape[3]) if room else None
        args = tuple(_refilled(value, rest, view) for value in self._call.args)
        kwargs = {name: _refilled(value, rest, view) for name, value in self._call.kwargs.items()}
        own = dict(zip(state_of(module), state, strict=True))
        with _placeless(module):
            result = torch.func.functional_call(module, own, args, kwargs)
        if isinstance(result, Tensor):
            self._seen.pattern = ("tensor",)
            return [result]
        if not isinstance(result, tuple) or not all(x is None or isinstance(x, Tensor) for x in result):
            message = f"its layers return a {type(result).__name__}"
            raise NotCompilableError(message)
        self._seen.pattern = ("(", *("None" if item is None else "tensor" for item in result))
        return [item for item in result if item is not None]


class _Seen:
    pattern: tuple[str, ...] = ()


def _refilled(value: Any, tensors: Iterator[Tensor], view: Any) -> Any:
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple):
        return tuple(next(tensors) for _ in value)
    return view if isinstance(value, Cache) else value


class _View:
    """The layer of a cache that a traced module sees."""

    def __init__(self, room: list[Tensor], width: int) -> None:
        self._keys, self._values = room
        self._width = width

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        first = self._width - key_states.shape[2]
        self._keys[:, :, first : self._width] = key_states
        self._values[:, :, first : self._width] = value_states
        return self._keys[:, :, : self._width], self._values[:, :, : self._width]

    def __getattr__(self, name: str) -> Any:
        message = f"its layers use {name} of the cache"
        raise NotCompilableError(message)


@contextlib.contextmanager
def _placeless(module: nn.Module) -> Iterator[None]:
    """While one kernel is traced for all layers, none may ask which one it is."""
    parts = [part for part in module.modules() if isinstance(vars(part).get("layer_idx"), int)]
    numbers = [part.layer_idx for part in parts]
    for part in parts:
        part.layer_idx = _Placeless()  # type: ignore[assignment]  # only passed on, to the cache
    try:
        yield
    finally:
        for part, number in zip(parts, numbers, strict=True):
            part.layer_idx = number


class _Placeless:
    """A number of a layer that may be passed on, and not be used."""

    def _refuse(self, *args: Any) -> Any:
        message = "its layers differ by their number"
        raise NotCompilableError(message)

    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __add__ = __radd__ = __mod__ = __int__ = __index__ = _refuse
    __float__ = __bool__ = __hash__ = __mul__ = __sub__ = _refuse


def example(shape: Shape, state: list[Tensor], hidden: Tensor, call: Call) -> tuple[list[Any], list[Any]]:
    """Inputs to trace with, and which of their sizes stay open."""
    batch, count = call.size
    rows, block = shape.example
    tensors, open_sizes = [], []
    for tensor in (hidden, *call.tensors):
        sizes, found = list(tensor.shape), {}
        column = 2 if tensor.dim() == 4 else 1
        for dim, size, chosen in ((0, batch, rows), (column, count, block)):
            if chosen > 1 and tensor.dim() > dim and tensor.shape[dim] == size:
                sizes[dim] = chosen
                if rows * block > 2:
                    found[dim] = Dim.DYNAMIC
        if _is_mask(tensor):
            sizes[3], found[3] = _COLUMNS, Dim.DYNAMIC
        tensors.append(tensor.new_ones(sizes))
        open_sizes.append(found)
    room = [x.new_zeros(rows, x.shape[1], _ROOM, x.shape[3]) for x in call.room]
    stores = {2: Dim.DYNAMIC} | ({0: Dim.DYNAMIC} if rows * block > 2 and rows > 1 else {})
    return [state, tensors, room], [[None] * len(state), open_sizes, [stores] * len(room)]


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, in a fixed order."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a text, or a list of such: what can be written down."""
    if isinstance(value, (tuple, list)):
        return all(map(is_plain, value))
    return isinstance(value, _SIMPLE)


def plain_values(module: nn.Module) -> dict[str, Any]:
    """The numbers and texts that a module holds, by name."""
    return {name: value for name, value in vars(module).items() if type(value) in _SIMPLE}

"""What a session does to the layers of transformers' caches: choose rows, roll back, move rows in and out.

Slots are the columns of keys and values. Rows are right-aligned in them, see `decodekit.session`.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, StaticCache
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
    StaticLayer,
)

from decodekit import quantized_cache
from decodekit.errors import CapabilityError, ParameterError
from decodekit.growing import GrowingLayer
from decodekit.history import shift_right
from decodekit.model_inputs import ModelInputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "KINDS",
    "RowCache",
    "branch",
    "can_join",
    "can_pack",
    "can_roll_back",
    "capacity",
    "is_recorded",
    "is_recurrent",
    "join",
    "new_cache",
    "pack",
    "put_rows",
    "record",
    "roll_back",
    "room",
    "rows",
    "select",
    "settle",
    "take_row",
    "trim",
    "why_no_rollback",
    "windows",
]

_WHOLE = (DynamicLayer, GrowingLayer)  # they grow, and keep every token
_JOINS = {
    *_WHOLE,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    DummyLayer,
}
_REORDERS = (LinearAttentionCacheLayerMixin, GrowingLayer)
KINDS = ("dynamic", "offloaded", "static", "offloaded_static")


def new_cache(model: "PreTrainedModel", kind: str, capacity: int | None) -> Cache | None:
    """An empty cache for a model.

    Args:
        model: of transformers.
        kind: one of `KINDS`, "none", or "growing": a dynamic one whose windows keep everything.
        capacity: the most slots of a static one.

    Raises:
        ParameterError: another kind, or a static one without a capacity.
    """
    if kind == "none":
        return None
    config = model.config.get_text_config(decoder=True)
    if kind in ("dynamic", "offloaded"):
        cache = DynamicCache(config=config, offloading=kind == "offloaded")
        if kind == "dynamic":
            cache.layers = [GrowingLayer() if type(x) is DynamicLayer else x for x in cache.layers]
    elif kind == "growing":
        cache = DynamicCache(config=config)
        cache.layers = [GrowingLayer() for _ in cache.layers]
    elif kind in KINDS and capacity is not None:
        cache = StaticCache(config=config, max_cache_len=capacity, offloading=kind == "offloaded_static")
    else:
        message = (
            f"cache={kind!r} is not allowed: cache must be 'none' or one of {', '.join(map(repr, KINDS))} "
            "(static ones with a capacity)"
        )
        raise ParameterError(message)
    if model.config.is_encoder_decoder:
        cache = EncoderDecoderCache(cache, DynamicCache(config=_without_windows(config)))
    return cache


def _without_windows(config: Any) -> Any:
    """Cross-attention sees the whole source, also where the decoder has sliding windows."""
    if getattr(config, "layer_types", None) is None:
        return config
    whole = type(config).from_dict(config.to_dict())
    whole.sliding_window, whole.layer_types = None, ["full_attention"] * config.num_hidden_layers
    return whole


def _own(cache: Cache) -> list[Any]:
    layers: list[Any] = (
        cache.self_attention_cache.layers if isinstance(cache, EncoderDecoderCache) else cache.layers
    )
    return layers


def _cross(cache: Cache) -> list[Any]:
    return cache.cross_attention_cache.layers if isinstance(cache, EncoderDecoderCache) else []


def is_recurrent(cache: Cache | None) -> bool:
    """Whether a layer keeps a state instead of tokens."""
    return cache is not None and any(isinstance(x, LinearAttentionCacheLayerMixin) for x in _own(cache))


def can_roll_back(cache: Cache) -> bool:
    """Whether every layer can take tokens back, another number in each row."""
    kinds = (*_WHOLE, DynamicSlidingWindowLayer, StaticLayer, DummyLayer)
    return all(type(layer) in kinds or quantized_cache.by_slot(layer) for layer in _own(cache))


def why_no_rollback(cache: Cache | None) -> str:
    """Why tokens can't be taken back, and what to do."""
    if cache is not None and any(quantized_cache.is_quantized(layer) for layer in _own(cache)):
        return (
            "the quantized cache rounds tokens in groups, so that one which is taken back leaves a trace in "
            "others; use cache_config={'backend': 'fp8'}"
        )
    return "the cache has layers that overwrite old tokens; use the dynamic cache"


def capacity(cache: Cache | None) -> int | None:
    """How many slots it has at most; None where it grows."""
    held = [layer.max_cache_len for layer in _own(cache) if type(layer) is StaticLayer] if cache else []
    return min(held, default=None)


def room(cache: Cache | None, width: int) -> int | None:
    """How many slots it has beside ``width``; None where it grows."""
    most = capacity(cache)
    return None if most is None else most - width


def rows(cache: Cache) -> int | None:
    """How many rows it holds; None while it holds nothing."""
    return next((len(x.keys) for x in _own(cache) if _has_keys(x) and x.keys.numel()), None)


def windows(cache: Cache) -> list[int | None]:
    """How many tokens each layer sees at most; None where it sees all."""
    return [
        getattr(layer, "sliding_window", None) or layer.max_cache_len
        if getattr(layer, "is_sliding", False)
        else None
        for layer in _own(cache)
    ]


def is_recorded(cache: Cache | None) -> bool:
    """Whether it has windows that `record` and `settle` are for."""
    return cache is not None and any(isinstance(layer, DynamicSlidingWindowLayer) for layer in _own(cache))


def _has_keys(layer: Any) -> bool:
    return isinstance(layer, CacheLayerMixin) and layer.is_initialized and layer.keys is not None


def record(cache: Cache) -> None:
    """From now on sliding windows keep everything until `settle`, so that tokens can be taken back."""
    for layer in _own(cache):
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.activate_past_recording()


def branch(cache: Cache, layers: int) -> Cache:
    """A cache that begins with what the first ``layers`` layers hold.

    It shares their tensors: an update makes new ones, or writes behind what is in use.
    """
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers[:layers]]
    for layer in other.layers:
        if isinstance(layer, StaticLayer):
            layer.cumulative_length = layer.cumulative_length.clone()
    return other


def settle(cache: Cache) -> None:
    """Let sliding windows drop what has left them."""
    for layer in _own(cache):
        if isinstance(layer, DynamicSlidingWindowLayer) and layer.record_past:
            layer.crop(0)


def select(cache: Cache, index: Tensor) -> None:
    """Keep the given rows, in that order, duplicates allowed."""
    for layer in [*_own(cache), *_cross(cache)]:
        if isinstance(layer, _REORDERS) or quantized_cache.is_quantized(layer):
            layer.reorder_cache(index)
        elif _has_keys(layer) and layer.keys.numel():
            layer.reorder_cache(index)
            if isinstance(layer, StaticLayer):
                layer.batch_size = len(index)


def roll_back(cache: Cache, common: int, shifts: Tensor | None) -> None:
    """Move each row to the right by ``shifts`` slots, then drop the last ``common`` slots."""
    for layer in _own(cache):
        if not _has_keys(layer):
            continue
        if quantized_cache.is_quantized(layer):
            quantized_cache.roll_back(layer, common, shifts)
            continue
        if shifts is not None and isinstance(layer, GrowingLayer):
            layer.shift(shifts)
        elif shifts is not None:
            layer.keys = shift_right(layer.keys, shifts, 2)
            layer.values = shift_right(layer.values, shifts, 2)
        if isinstance(layer, StaticLayer):
            layer.cumulative_length.sub_(common)
            continue
        kept = layer.keys.shape[2] - common  # crop() would also cut windows, and a second rollback needs more
        layer.keys, layer.values = layer.keys[:, :, :kept], layer.values[:, :, :kept]
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.cumulative_length -= common


def trim(cache: Cache, spare: int) -> None:
    """Drop the first ``spare`` slots, which are padding in every row."""
    for layer in _own(cache):
        if not _has_keys(layer):
            continue
        if quantized_cache.is_quantized(layer):
            quantized_cache.trim(layer, spare)
            continue
        if isinstance(layer, StaticLayer):
            layer.keys, layer.values = layer.keys.roll(-spare, dims=2), layer.values.roll(-spare, dims=2)
            layer.cumulative_length.sub_(spare)
            continue
        kept = layer.get_seq_length() - spare
        first = max(layer.keys.shape[2] - kept, 0)
        layer.keys, layer.values = layer.keys[:, :, first:], layer.values[:, :, first:]
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.cumulative_length = kept


def can_pack(cache: Cache) -> bool:
    """Whether `pack` works: every layer keeps all of its tokens."""
    return all(type(layer) in _WHOLE for layer in _own(cache))


def pack(cache: Cache, mask: Tensor) -> None:
    """Move the slots of each row that ``mask`` bool [B, W] names to its end, in their order."""
    order = mask.long().argsort(dim=1, stable=True)[:, None, :, None]
    for layer in _own(cache):
        if _has_keys(layer) and layer.keys.numel():
            index = order.to(layer.keys.device)
            layer.keys = layer.keys.gather(2, index.expand(layer.keys.shape))
            layer.values = layer.values.gather(2, index.expand(layer.values.shape))


Pair = tuple[Tensor, Tensor]


@attrs.frozen(eq=False)
class RowCache:
    """What a session holds of one row.

    Attributes:
        length: its tokens.
        inputs: what the model is given beside them.
        own: keys and values [1, H, n, D] of each layer that has them.
        cross: the same of the layers that see an encoder's output.
        states: of each layer the recurrent states [1, ...] by their names.
    """

    length: int
    inputs: ModelInputs
    own: list[Pair | None]
    cross: list[Pair | None]
    states: list[dict[tuple[str, int], Tensor]]


def take_row(cache: Cache, row: int, length: int, width: int, inputs: ModelInputs) -> RowCache:
    """A copy of one row, whose ``length`` tokens stand in the last of ``width`` slots.

    Raises:
        CapabilityError: the cache is quantized, and holds rows together.
    """
    if any(quantized_cache.is_quantized(layer) for layer in _own(cache)):
        message = (
            "a quantized cache can't hand back rows that ended at different tokens: pass one prompt at a "
            "time, or a new cache"
        )
        raise CapabilityError(message)
    own: list[Pair | None] = []
    for layer in _own(cache):
        if not _has_keys(layer):
            own.append(None)
            continue
        stop = min(width, layer.keys.shape[2]) if isinstance(layer, StaticLayer) else layer.keys.shape[2]
        span = slice(max(stop - length, 0), stop)
        own.append((layer.keys[row, None, :, span].clone(), layer.values[row, None, :, span].clone()))
    cross = [
        (layer.keys[row, None].clone(), layer.values[row, None].clone()) if _has_keys(layer) else None
        for layer in _cross(cache)
    ]
    states = [{name: state[row, None].clone() for name, state in _states(layer)} for layer in _own(cache)]
    return RowCache(length, inputs, own, cross, states)


def _states(layer: Any) -> Iterator[tuple[tuple[str, int], Tensor]]:
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        for kind in ("conv_states", "recurrent_states"):
            for number, state in getattr(layer, kind).items():
                if state is not None:
                    yield (kind, number), state


def put_rows(cache: Cache, rows: Sequence[RowCache], columns: Sequence[Sequence[int]], width: int) -> None:
    """Fill a cache with rows, whose tokens are to stand in the named ones of ``width`` slots.

    Slots that are no token of a row hold zeros. A sliding window holds what falls into it.
    """
    for number, layer in enumerate(_own(cache)):
        pairs = [pair for row in rows if (pair := row.own[number]) is not None]
        if pairs:
            _put(layer, pairs, columns, width)
        for kind, name in rows[0].states[number]:
            getattr(layer, kind)[name] = torch.cat([row.states[number][kind, name] for row in rows])
    for number, layer in enumerate(_cross(cache)):
        pairs = [pair for row in rows if (pair := row.cross[number]) is not None]
        if pairs:
            layer.keys, layer.values = (torch.cat(tensors) for tensors in zip(*pairs, strict=True))


def can_join(cache: Cache) -> bool:
    """Whether `join` works: every layer grows, and keeps all its rows on one device."""
    kinds = {type(layer) for layer in _own(cache)}
    return type(cache) is DynamicCache and not cache.offloading and kinds <= _JOINS


def join(cache: Cache, other: Cache) -> None:
    """Add the rows of another cache of the same model below; both are right-aligned, and so is the result.

    Slots that are no token of a row hold zeros.
    """
    for layer, more in zip(_own(cache), _own(other), strict=True):
        for (kind, name), state in list(_states(more)):
            held = getattr(layer, kind)
            held[name] = torch.cat([held[name], state])
        if not _has_keys(layer):
            continue
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.cumulative_length = max(layer.cumulative_length, more.cumulative_length)
        layer.keys = _below(layer.keys, more.keys)
        layer.values = _below(layer.values, more.values)


def _below(first: Tensor, second: Tensor) -> Tensor:
    """[A + B, H, n, D] of [A, H, m, D] and [B, H, n, D], with zeros left of the narrower one."""
    width = max(first.shape[2], second.shape[2])
    wide = [torch.nn.functional.pad(part, (0, 0, width - part.shape[2], 0)) for part in (first, second)]
    return torch.cat(wide)


def _put(layer: Any, pairs: Sequence[Pair], columns: Sequence[Sequence[int]], width: int) -> None:
    held = width
    if isinstance(layer, StaticLayer):
        held, layer.batch_size = layer.keys.shape[2], len(pairs)
        layer.cumulative_length.fill_(min(width, held))
        if hasattr(layer, "cumulative_length_int"):  # of a window, which counts twice
            layer.cumulative_length_int = width
    elif isinstance(layer, DynamicSlidingWindowLayer):
        held, layer.cumulative_length = min(width, layer.sliding_window - 1), width
    first = max(width - held, 0)
    for name, tensors in zip(("keys", "values"), zip(*pairs, strict=True), strict=True):
        whole = tensors[0].new_zeros(len(pairs), tensors[0].shape[1], held, tensors[0].shape[3])
        for row, (part, places) in enumerate(zip(tensors, columns, strict=True)):
            last = torch.tensor(places[len(places) - part.shape[2] :], dtype=torch.long) - first
            whole[row, :, last[last >= 0]] = part[0, :, last >= 0]
        setattr(layer, name, whole)

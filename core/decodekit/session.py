"""One model and its cache, as a batch of rows: the only module that knows masks, positions and layout.

Every row is right-aligned: row ``r`` owns the last ``length[r]`` of ``width`` cache slots, and the slots
to its left are padding. Masks and position ids follow from ``(width, pads)`` alone, and neighbouring
tokens of a row stand in neighbouring slots, which sliding windows need.

* Rows that feed a different number of tokens are padded on the right, where causal masks hide the
  padding, and the padding is rolled back.
* Rolling back a different number of tokens per row crops what all rows give up, and shifts the rest
  of each row to the right.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from transformers import DynamicCache, GenerationMixin, StaticCache
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
    StaticLayer,
)
from transformers.generation.utils import ALL_CACHE_NAMES

from decodekit.errors import CapabilityError, ParameterError
from decodekit.history import shift_right
from decodekit.strategy import Capability

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Forward", "Session"]

_ALL = frozenset(Capability)


@attrs.frozen(eq=False)
class Forward:
    """What one forward pass gave.

    Attributes:
        logits: [B, n, V] in the model's dtype, for the last ``n`` columns of what was fed.
        hidden_states: per layer [B, n, D], when they were asked for.
    """

    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None

    def at(self, index: Tensor) -> "Forward":
        """The columns int64 [B, m] of each row."""
        rows = torch.arange(index.shape[0], device=index.device)[:, None]
        hidden = self.hidden_states
        return Forward(self.logits[rows, index], tuple(h[rows, index] for h in hidden) if hidden else None)

    @staticmethod
    def join(first: "Forward", second: "Forward") -> "Forward":
        """The columns of both, side by side."""
        pairs = zip(first.hidden_states or (), second.hidden_states or (), strict=True)
        hidden = tuple(torch.cat(pair, dim=1) for pair in pairs)
        return Forward(torch.cat([first.logits, second.logits], dim=1), hidden or None)

    def select(self, rows: Tensor) -> "Forward":
        """The given rows, in that order."""
        hidden = self.hidden_states
        return Forward(self.logits[rows], tuple(h[rows] for h in hidden) if hidden else None)


class Session:
    """A model with the cached tokens of a batch of rows.

    Attributes:
        width: cache slots in use.
        pads: how many slots on the left of each row are padding.
        forward_passes, tokens_fed: counters; padding is not counted.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        *,
        cache: str = "dynamic",
        capacity: int | None = None,
        model_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Open a session; nothing is computed yet.

        Args:
            model: a decoder-only model of transformers.
            cache: "dynamic", "static" (needs ``capacity``) or "none" (every pass recomputes the whole row).
            capacity: the most slots a static cache must hold.
            model_kwargs: passed on to every forward pass.

        Raises:
            ParameterError: ``cache`` is another word, or a static cache has no capacity.
        """
        self.model = model
        self.device = model.device
        self.width = 0
        self.pads: list[int] = []
        self.forward_passes = 0
        self.tokens_fed = 0
        self._model_kwargs = model_kwargs or {}
        self._tokens = torch.empty(0, 0, dtype=torch.long)  # only when there is no cache
        self.cache = _new_cache(model, cache, capacity)
        accepted = inspect.signature(model.forward).parameters
        self._cache_name = next((name for name in ALL_CACHE_NAMES if name in accepted), "past_key_values")
        self._takes = {
            name for name in ("position_ids", "logits_to_keep", "attention_mask") if name in accepted
        }
        own_inputs = (
            type(model).prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation
        )
        self._prepares = own_inputs or _is_recurrent(self.cache)

    @property
    def offers(self) -> frozenset[Capability]:
        """What a strategy may ask of this session."""
        if _is_recurrent(self.cache):
            return frozenset({Capability.SELECT, Capability.HIDDEN_STATES})
        if self.cache is None or all(_can_roll_back(layer) for layer in self.cache.layers):
            return _ALL
        return _ALL - {Capability.ROLLBACK}

    def why_not(self, capability: Capability) -> str:
        """Why a capability is not offered, and what to do."""
        if _is_recurrent(self.cache):
            return (
                f"{type(self.model).__name__} keeps a recurrent state, which can't be taken back or "
                "fed unevenly; pass use_cache=False to recompute instead"
            )
        return "the cache has layers that overwrite old tokens; use the dynamic cache"

    @property
    def lengths(self) -> list[int]:
        """How many tokens of each row are in the cache."""
        return [self.width - pad for pad in self.pads]

    def feed(
        self,
        tokens: Tensor,
        counts: Sequence[int] | None = None,
        *,
        keep: int | None = None,
        hidden: bool = False,
    ) -> Forward:
        """Run the model on the next tokens of every row.

        Args:
            tokens: int64 [B, n]. Into an empty session rows are right-aligned (padding on the left);
                afterwards they are left-aligned (padding on the right).
            counts: how many of the ``n`` are tokens, for each row; left out, all.
            keep: give the logits of the last ``keep`` columns only; left out, of all.
            hidden: give the hidden states as well.

        Returns:
            The outputs for the last ``keep`` columns; those of padding columns mean nothing.

        Raises:
            CapabilityError: ``counts`` differ and the cache can't roll back; nothing has changed then.
        """
        batch, count = tokens.shape
        counts = list(counts) if counts is not None else [count] * batch
        first = self.width == 0
        uneven = any(real != count for real in counts)
        if first:
            self.pads = [count - real for real in counts]
        elif uneven:
            self._demand_rollback()
        if _is_recurrent(self.cache) and not first and count > 1:
            # Mamba's forward of several tokens onto a state is off by 1e-4; one by one it is exact.
            outputs = [self.feed(column, hidden=hidden) for column in torch.split(tokens, 1, dim=1)]
            return functools.reduce(Forward.join, outputs[-(keep or count) :])
        output = self._forward(tokens, keep or count, hidden)
        self.width += count
        self.forward_passes += 1
        self.tokens_fed += sum(counts)
        if not first and uneven:
            self.rollback([count - real for real in counts])
        return output

    def _forward(self, tokens: Tensor, keep: int, hidden: bool) -> Forward:
        batch, count = tokens.shape
        tokens = tokens.to(self.device)
        if self.cache is None:
            self._tokens = tokens = (
                torch.cat([self._tokens.to(self.device), tokens], dim=1) if self.width else tokens
            )
        start = self.width if self.cache is not None else 0
        inputs: dict[str, Any] = dict(self._model_kwargs)
        pads = torch.tensor(self.pads, device=self.device)[:, None] if any(self.pads) else None
        columns = torch.arange(start, self.width + count, device=self.device)
        if "position_ids" in self._takes:
            inputs["position_ids"] = (
                columns.expand(batch, -1) if pads is None else (columns - pads).clamp_(min=0)
            )
        if "attention_mask" in self._takes:
            inputs["attention_mask"] = self._mask(pads, count)
        if "logits_to_keep" in self._takes:
            inputs["logits_to_keep"] = keep
        if hidden:
            inputs["output_hidden_states"] = True
        inputs |= {"use_cache": self.cache is not None, self._cache_name: self.cache}
        if self._prepares:
            inputs = self.model.prepare_inputs_for_generation(
                tokens, is_first_iteration=self.width == 0, **inputs
            )
        else:
            inputs["input_ids"] = tokens
        if self.cache is not None and self.width:  # not for the prompt: a window keeps only its end
            _record(self.cache)
        output = self.model(**inputs, return_dict=True)
        states = tuple(h[:, -keep:] for h in output.hidden_states) if hidden else None
        return Forward(output.logits[:, -keep:], states)

    def _mask(self, pads: Tensor | None, count: int) -> Tensor | None:
        """int64 [B, width + count], or None when nothing is padding: kernels are faster without."""
        if pads is None:
            return None
        return (torch.arange(self.width + count, device=self.device) >= pads).long()

    def select(self, rows: Sequence[int]) -> None:
        """Keep the given rows, in that order; a row may be named more than once."""
        if list(rows) == list(range(len(self.pads))):
            return
        self.pads = [self.pads[row] for row in rows]
        index = torch.tensor(list(rows), dtype=torch.long, device=self.device)
        if self.cache is None:
            self._tokens = self._tokens.to(self.device)[index]
        else:
            for layer in self.cache.layers:
                _select(layer, index)
        self._trim()

    def rollback(self, counts: Sequence[int]) -> None:
        """Take back the last tokens, ``counts[r]`` of row ``r``.

        Models with sliding windows can take back what was fed since `settle`, and nothing of the prompt.

        Raises:
            CapabilityError: the cache can't; nothing has changed then.
        """
        if not any(counts):
            return
        self._demand_rollback()
        common = min(counts)
        shifts = [count - common for count in counts]
        index = torch.tensor(shifts, device=self.device) if any(shifts) else None
        if self.cache is None:
            self._tokens = (
                self._tokens if index is None else shift_right(self._tokens.to(self.device), index, 1)
            )
            self._tokens = self._tokens[:, : self.width - common]
        else:
            for layer in self.cache.layers:
                _roll_back(layer, common, index)
        self.width -= common
        self.pads = [pad + shift for pad, shift in zip(self.pads, shifts, strict=True)]
        self._trim()

    def _demand_rollback(self) -> None:
        if Capability.ROLLBACK not in self.offers:
            message = f"rollback is not possible: {self.why_not(Capability.ROLLBACK)}"
            raise CapabilityError(message)

    def settle(self) -> None:
        """Let sliding windows drop what has left them; what stands now can't be taken back any more."""
        for layer in self.cache.layers if self.cache is not None else ():
            if isinstance(layer, DynamicSlidingWindowLayer) and layer.record_past:
                layer.crop(0)

    def _trim(self) -> None:
        """Drop the slots that are padding in every row."""
        spare = min(self.pads, default=0)
        if not spare or not (self.cache is None or all(_can_roll_back(layer) for layer in self.cache.layers)):
            return
        if self.cache is None:
            self._tokens = self._tokens[:, spare:]
        else:
            for layer in self.cache.layers:
                _trim(layer, spare)
        self.width -= spare
        self.pads = [pad - spare for pad in self.pads]


def _new_cache(model: "PreTrainedModel", kind: str, capacity: int | None) -> Cache | None:
    if kind == "none":
        return None
    if kind == "dynamic":
        return DynamicCache(config=model.config)
    if kind == "static" and capacity is not None:
        return StaticCache(config=model.config, max_cache_len=capacity)
    message = f"cache={kind!r} is not allowed: cache must be 'dynamic', 'static' (with a capacity) or 'none'"
    raise ParameterError(message)


def _is_recurrent(cache: Cache | None) -> bool:
    return cache is not None and any(
        isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers
    )


def _can_roll_back(layer: Any) -> bool:
    return type(layer) in (DynamicLayer, DynamicSlidingWindowLayer, StaticLayer)


def _record(cache: Cache) -> None:
    """From now on sliding windows keep everything until `settle`, so that tokens can be taken back."""
    for layer in cache.layers:
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.activate_past_recording()


def _select(layer: Any, index: Tensor) -> None:
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        layer.reorder_cache(index)
    elif (
        isinstance(layer, CacheLayerMixin)
        and layer.is_initialized
        and layer.keys is not None
        and layer.keys.numel()
    ):
        layer.reorder_cache(index)
        if isinstance(layer, StaticLayer):
            layer.batch_size = len(index)


def _roll_back(layer: Any, common: int, shifts: Tensor | None) -> None:
    """Shift the rows of one layer, then drop the last ``common`` slots."""
    if not layer.is_initialized:
        return
    if shifts is not None:
        layer.keys = shift_right(layer.keys, shifts, 2)
        layer.values = shift_right(layer.values, shifts, 2)
    if isinstance(layer, StaticLayer):
        layer.cumulative_length.sub_(common)
        return
    kept = layer.keys.shape[2] - common  # crop() would also cut windows, and a second rollback needs more
    layer.keys, layer.values = layer.keys[:, :, :kept], layer.values[:, :, :kept]
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length -= common


def _trim(layer: Any, spare: int) -> None:
    if not layer.is_initialized:
        return
    if isinstance(layer, StaticLayer):
        layer.keys, layer.values = layer.keys.roll(-spare, dims=2), layer.values.roll(-spare, dims=2)
        layer.cumulative_length.sub_(spare)
        return
    kept = layer.get_seq_length() - spare
    layer.keys = layer.keys[:, :, max(layer.keys.shape[2] - kept, 0) :]
    layer.values = layer.values[:, :, max(layer.values.shape[2] - kept, 0) :]
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length = kept

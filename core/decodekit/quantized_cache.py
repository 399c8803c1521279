"""Caches that hold keys and values in few bits: ``cache_implementation="quantized"``.

fp8 holds each slot for itself, so that rows can be chosen and tokens be taken back, exactly. quanto and hqq
round whole groups of slots, again and again as the cache grows: rows can be chosen, and a token that was
taken back would have left its trace in the others.
"""

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import BaseQuantizedLayer, Fp8QuantizedLayer, QuantizedCache

from decodekit.errors import CapabilityError, MissingLibraryError, ParameterError, nearest
from decodekit.history import shift_right

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["BACKENDS", "by_slot", "is_quantized", "new_quantized_cache", "roll_back", "trim"]

BACKENDS: dict[str, dict[str, str]] = {
    "fp8": {},
    "hqq": {"hqq": "hqq>=0.2.1"},
    "quanto": {"optimum.quanto": "optimum-quanto>=0.2.5"},
}
"""Backend -> the libraries that it needs, as import name -> pip requirement."""
_OPTIONS = ("backend", "nbits", "axis_key", "axis_value", "q_group_size", "residual_length")


def new_quantized_cache(model: "PreTrainedModel", options: Mapping[str, Any] | None) -> QuantizedCache:
    """An empty cache that rounds keys and values.

    Args:
        model: a decoder-only model whose layers all see all tokens.
        options: ``cache_config``: ``backend`` (quanto when left out, as in transformers), and for quanto and
            hqq ``nbits``, ``axis_key``, ``axis_value``, ``q_group_size`` and ``residual_length``.

    Raises:
        ParameterError: an option, or its value, is not known.
        MissingLibraryError: a library of the backend is not installed.
        CapabilityError: the model has an encoder, windows or states.
    """
    given = dict(options or {})
    for name in given:
        if name not in _OPTIONS:
            message = f"cache_config has no option {name!r}; it has {', '.join(_OPTIONS)}."
            raise ParameterError(message + nearest(name, _OPTIONS))
    backend = given.pop("backend", "quanto")
    if backend not in BACKENDS:
        message = f"cache_config has backend={backend!r}, which must be one of {', '.join(BACKENDS)}."
        raise ParameterError(message + nearest(str(backend), BACKENDS))
    _check_libraries(backend)
    if model.config.is_encoder_decoder:
        message = (
            f"cache_implementation='quantized' needs a decoder-only model, and {type(model).__name__} has an "
            "encoder: leave it out"
        )
        raise CapabilityError(message)
    try:
        return QuantizedCache(backend, model.config, **given)
    except ValueError as error:
        kind = CapabilityError if "full attention" in str(error) else ParameterError
        message = f"cache_implementation='quantized' with cache_config={dict(options or {})}: {error}"
        raise kind(message) from error


def _check_libraries(backend: str) -> None:
    for library, requirement in BACKENDS[backend].items():
        try:
            found = importlib.util.find_spec(library) is not None
        except ModuleNotFoundError:  # the package above it is missing
            found = False
        if not found:
            message = (
                f"a quantized cache with backend={backend!r} needs the library {library}: pip install "
                f"'{requirement}', or pass cache_config={{'backend': 'fp8'}}, which needs none"
            )
            raise MissingLibraryError(message)


def is_quantized(layer: Any) -> bool:
    """Whether a layer holds its keys and values in few bits."""
    return isinstance(layer, BaseQuantizedLayer)


def by_slot(layer: Any) -> bool:
    """Whether each slot of a quantized layer is rounded for itself, so that any can be dropped."""
    return type(layer) is Fp8QuantizedLayer


def roll_back(layer: Any, common: int, shifts: Tensor | None) -> None:
    """Move each row to the right by ``shifts`` slots, then drop the last ``common`` slots."""
    keep = slice(0, layer.cumulative_length - common)
    _change(layer, lambda x: (x if shifts is None else _shifted(x, shifts))[:, :, keep])
    layer.cumulative_length -= common


def trim(layer: Any, spare: int) -> None:
    """Drop the first ``spare`` slots."""
    _change(layer, lambda x: x[:, :, spare:])
    layer.cumulative_length -= spare


def _change(layer: Any, change: Any) -> None:
    for name in ("_quantized_keys", "_quantized_values"):
        values, scale = getattr(layer, name)
        setattr(layer, name, (change(values), scale))


def _shifted(x: Tensor, shifts: Tensor) -> Tensor:
    return shift_right(x.view(torch.uint8), shifts, 2).view(x.dtype)  # nothing gathers float8

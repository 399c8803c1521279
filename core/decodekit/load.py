"""Load a model and its tokenizer, through a quantization backend."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from decodekit.default_model import default_model, verify
from decodekit.errors import CapabilityError, DecodekitError, ModelNotFoundError, ParameterError, nearest
from decodekit.quant_backend import QuantBackend
from decodekit.registry import registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["load", "model_bytes"]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def load(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    quant: Any = "none",
    device_map: Any = None,
    dtype: str | torch.dtype = "auto",
    trust_remote_code: bool = False,
    revision: str | None = None,
    **options: Any,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a causal language model in eval mode, and its tokenizer.

    Args:
        name_or_path: a folder, a hub id, or None for the embedded default model.
        quant: the quantization backend: a name, ``(name, {option: value})``, a class or an instance.
        device_map: as in transformers; None takes the first CUDA device, or the CPU where there is none.
        dtype: the dtype of what is not quantized; ``"auto"`` is that of the model's configuration.
        trust_remote_code: allow code that comes with the model to run.
        revision: the branch, tag or commit of a hub id.
        **options: options of the backend, e.g. ``double_quant=True``.

    Raises:
        ModelNotFoundError: there is no such model here, and it could not be fetched either.
        DamagedCacheError: the cached default model can't be read.
        MissingLibraryError: a library that the backend needs, or the default model, is not installed.
        CapabilityError: the model is quantized already.
        ParameterError, UnknownNameError: an option, or the backend's name, is not known.
    """
    dtype = _dtype(dtype)
    backend = _backend(quant, options)
    device = _device(device_map)
    backend.check(device)
    if device_map is None and device.type != "cpu":
        device_map = {"": device}
    keywords: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision or "main"}
    if name_or_path is not None:
        name = _existing(name_or_path)
        try:
            return _load(name, backend, device, device_map, dtype, keywords)
        except DecodekitError:
            raise
        except (OSError, ValueError, ImportError, SafetensorError) as error:
            raise _explained(name, error) from error
    folder = default_model()
    try:
        return _load(str(folder), backend, device, device_map, dtype, keywords)
    except Exception:
        verify(folder, checksums=True)  # damage is the likeliest reason; if so, say that instead
        raise


def _load(
    name: str,
    backend: QuantBackend,
    device: torch.device,
    device_map: Any,
    dtype: str | torch.dtype,
    keywords: dict[str, Any],
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(name, **keywords)
    known = dtype if isinstance(dtype, torch.dtype) else config.get_text_config().dtype or torch.float32
    quantized = backend.load_kwargs(known, device)
    if quantized.get("quantization_config") and getattr(config, "quantization_config", None):
        message = (
            f"{name} is quantized already and can't be loaded with quant={backend.NAME!r}: use quant='none'"
        )
        raise CapabilityError(message)
    tokenizer = AutoTokenizer.from_pretrained(name, **keywords)
    loaded = AutoModelForCausalLM.from_pretrained(
        name, config=config, dtype=dtype, device_map=device_map, **quantized, **keywords
    )
    model = backend.convert(loaded)
    model.train(False)
    return model, tokenizer


def _backend(quant: Any, options: dict[str, Any]) -> QuantBackend:
    """The backend with its options, which may stand in ``quant`` or be keywords of `load`."""
    if options and isinstance(quant, (tuple, list)) and len(quant) == 2:
        quant, options = quant[0], {**quant[1], **options}
    if options and isinstance(quant, QuantBackend):
        message = f"quant={quant!r} is an instance already: give {', '.join(options)} to its constructor"
        raise ParameterError(message)
    backend: QuantBackend = registry().resolve("quant_backends", (quant, options) if options else quant)
    return backend


def _device(device_map: Any) -> torch.device:
    """The device that the model, or its first part, goes to."""
    first = next(iter(device_map.values()), None) if isinstance(device_map, dict) else device_map
    if first is None or first in ("auto", "balanced", "balanced_low_0", "sequential"):
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(first)
    except (RuntimeError, TypeError) as error:
        message = (
            f"device_map={device_map!r} is not a device such as 'cpu' or 'cuda:0', 'auto', or a dict of them"
        )
        raise ParameterError(message) from error


def _dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    if dtype == "auto" or isinstance(dtype, torch.dtype):
        return dtype
    if dtype in _DTYPES:
        return _DTYPES[dtype]
    message = f"dtype={dtype!r} is not allowed: dtype must be 'auto', {', '.join(map(repr, _DTYPES))}"
    raise ParameterError(message + "." + nearest(str(dtype), _DTYPES))


def _existing(name_or_path: str | os.PathLike[str]) -> str:
    """The folder or hub id, once it is clear that it can be one."""
    name = os.fspath(name_or_path)
    path = Path(name).expanduser()
    if name and (path / "config.json").is_file():
        return str(path)
    if name and path.is_dir():
        message = f"the folder {name} has no config.json: give a folder that save_pretrained() wrote"
        raise ModelNotFoundError(message)
    if path.exists() or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or not name:
        message = f"there is no folder {name!r}: give one from save_pretrained(), or a hub id like org/name"
        raise ModelNotFoundError(message)
    return name


def _explained(name: str, error: Exception) -> ModelNotFoundError:
    """What transformers says at length, with the next step."""
    reason = " ".join(str(error).split())
    if Path(name).is_dir():
        return ModelNotFoundError(f"the model in {name} can't be loaded: {reason}")
    message = (
        f"{name!r} is neither a folder here nor in the hub's local cache, and could not be fetched. Check "
        f"the spelling and the connection; a private model needs `hf auth login`. The reason given: {reason}"
    )
    return ModelNotFoundError(message)


def model_bytes(model: nn.Module) -> int:
    """The bytes that a model's parameters and buffers hold, on all devices together.

    Shared storage counts once. Quantized weights count as they are packed, with their scales where
    these hang on the parameter or, as in bitsandbytes, on the ``state`` of its module.
    """
    owners: list[Any] = [*model.parameters(), *model.buffers()]
    owners += [module.state for module in model.modules() if hasattr(module, "state")]
    storages = {
        (storage.device, storage.data_ptr()): storage.nbytes()
        for owner in owners
        for storage in (tensor.untyped_storage() for tensor in _tensors(owner))
    }
    return sum(storages.values())


def _tensors(owner: Any, depth: int = 3) -> Iterator[Tensor]:
    """A tensor, and those among its attributes: scales, code books, scales of the scales."""
    if isinstance(owner, Tensor):
        yield owner
    if depth and not isinstance(owner, nn.Module):  # a parameter may point back at its module
        for value in getattr(owner, "__dict__", {}).values():
            yield from _tensors(value, depth - 1)

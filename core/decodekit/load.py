"""Load a model and its tokenizer, through a quantization backend."""

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import GenerationConfig

from decodekit import graphs
from decodekit.arguments import check_compile
from decodekit.compiled import ask_for, compiled_step, warn_without
from decodekit.converted import verify
from decodekit.default_model import default_model
from decodekit.errors import DecodekitError, ModelNotFoundError, ParameterError, nearest
from decodekit.gguf_file import converted_gguf, is_gguf
from decodekit.hub import gguf_path, local_folder, only_local
from decodekit.kernels import NotCompilableError
from decodekit.memory import check_fits, is_out_of_memory, too_large
from decodekit.prequantized import check_prequantized, own_configuration
from decodekit.quant_backend import QuantBackend
from decodekit.registry import registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    _Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]

__all__ = ["device_of", "load", "model_bytes", "tensors_of"]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
# What from_pretrained calls it, and how it is said here.
_ELSEWHERE = {
    "torch_dtype": "dtype=",
    "device": "device_map=",
    "gguf_file": "the path of the GGUF file as the first argument",
    "load_in_4bit": "quant='bnb-nf4'",
    "load_in_8bit": "quant='bnb-int8'",
    "quantization_config": "quant= with the options of a backend",
    "token": "`hf auth login` or the environment variable HF_TOKEN",
}


def load(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    quant: Any = "none",
    device_map: Any = None,
    dtype: str | torch.dtype = "auto",
    trust_remote_code: bool = False,
    revision: str | None = None,
    compile: bool = False,
    **options: Any,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a causal language model in eval mode, and its tokenizer.

    A checkpoint that is quantized already is loaded as it is; a request that differs is an error.

    Args:
        name_or_path: a folder, a hub id, a GGUF file (a path, or ``org/name/file.gguf`` on the hub),
            or None for the embedded default model.
        quant: the quantization backend: a name, ``(name, {option: value})``, a class or an instance.
        device_map: as in transformers; None takes the first CUDA device, or the CPU where there is none.
        dtype: the dtype of what is not quantized; ``"auto"`` is that of the model's configuration, and
            float32 for a GGUF file, whose values it holds exactly.
        trust_remote_code: allow code that comes with the model to run.
        revision: the branch, tag or commit of a hub id.
        compile: run the model's passes of a few tokens as compiled kernels, in every call of `generate`
            that does not say otherwise. On a CPU those for one prompt are compiled now, if they are not on
            disk; on an accelerator they are graphs, and made by the first call.
        **options: options of the backend, e.g. ``double_quant=True``.

    Raises:
        ModelNotFoundError: there is no such model here, and it could not be fetched either.
        ModelTooLargeError: it does not fit into memory; the message says what would.
        DamagedCacheError: a converted model in the cache can't be read.
        MissingLibraryError: a library that the backend or the checkpoint needs, or the default model, is
            not installed.
        CapabilityError: the checkpoint is quantized in another way than was asked for, or the backend does
            not run on the device.
        ParameterError, UnknownNameError: an option, or the backend's name, is not known.
    """
    check_compile(compile)
    if not isinstance(name_or_path, (str, os.PathLike, type(None))):
        message = f"name_or_path={name_or_path!r} must be a folder, a hub id, a GGUF file, or None"
        raise ParameterError(message)
    dtype = _dtype(dtype)
    backend = _backend(quant, options)
    device = device_of(device_map)
    backend.check(device)
    if device_map is None and device.type != "cpu":
        device_map = {"": device}
    keywords: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision or "main"}
    if name_or_path is not None and not is_gguf(os.fspath(name_or_path)):
        name = local_folder(name_or_path)
        if not Path(name).is_dir():
            keywords["local_files_only"] = only_local(name, "config.json", revision)
        try:
            return _compiled(_load(name, backend, device, device_map, dtype, keywords), compile)
        except DecodekitError:
            raise
        except (OSError, ValueError, ImportError, SafetensorError) as error:
            raise _explained(name, error) from error
    folder = default_model() if name_or_path is None else _converted(name_or_path, dtype, revision)
    try:
        return _compiled(_load(str(folder), backend, device, device_map, dtype, keywords), compile)
    except DecodekitError:
        raise
    except Exception:
        verify(folder, checksums=True)  # damage is the likeliest reason; if so, say that instead
        raise


def _compiled(loaded: "_Loaded", asked: bool) -> "_Loaded":
    """Remember that a compiled step was asked for; on a CPU, compile its kernels for one prompt."""
    if not asked:
        return loaded
    model = loaded[0]
    try:
        if not graphs.are_for(model):  # which depend on the lengths of a call
            compiled_step(model).prepare(model, 1)
    except NotCompilableError as error:
        warn_without(model, error)
    else:
        ask_for(model)
    return loaded


def _converted(name_or_path: str | os.PathLike[str], dtype: str | torch.dtype, revision: str | None) -> Path:
    wanted = dtype if isinstance(dtype, torch.dtype) else torch.float32
    return converted_gguf(gguf_path(name_or_path, revision), wanted)


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
    own = own_configuration(config)
    if own is not None:
        check_prequantized(name, own, backend.NAME, quantized.pop("quantization_config", None), device)
    elif device_map is None or device_map == {"": device}:
        check_fits(name, config, known, backend, device)
    tokenizer = AutoTokenizer.from_pretrained(name, **keywords)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            name, config=config, dtype=dtype, device_map=device_map, **quantized, **keywords
        )
        model = backend.convert(loaded)
        if own is not None or backend.LAWS.bits is not None:
            _leave_file(model)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise too_large(name, config, known, backend, device) from error
    model.train(False)
    return model, tokenizer


def _leave_file(model: nn.Module) -> None:
    """Copy what was not quantized: as views into the file they would keep all of it in memory."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if type(tensor) in (nn.Parameter, Tensor) and tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def _backend(quant: Any, options: dict[str, Any]) -> QuantBackend:
    """The backend with its options, which may stand in ``quant`` or be keywords of `load`."""
    for name in options:
        if name in _ELSEWHERE:
            message = f"{name}= is not an argument of load: use {_ELSEWHERE[name]}"
            raise ParameterError(message)
    if options and isinstance(quant, (tuple, list)) and len(quant) == 2:
        quant, options = quant[0], {**quant[1], **options}
    if options and isinstance(quant, QuantBackend):
        message = f"quant={quant!r} is an instance already: give {', '.join(options)} to its constructor"
        raise ParameterError(message)
    try:
        backend: QuantBackend = registry().resolve("quant_backends", (quant, options) if options else quant)
    except ParameterError as error:
        if "Did you mean" in str(error):
            raise
        arguments = list(inspect.signature(load).parameters)
        meant = "".join(_of_generate(name) or nearest(name, arguments) for name in options)
        raise ParameterError(f"{error}.{meant}" if meant else str(error)) from error
    return backend


def _of_generate(name: str) -> str:
    """What to say of an argument that belongs into the call of generate; else an empty text."""
    known = name in ("strategy", "processors", "seed") or name in vars(GenerationConfig())
    return f" {name} is an argument of generate." if known else ""


def of_load(name: str) -> str:
    """What to say of an argument of generate that belongs into `load`; else an empty text."""
    known = name in _ELSEWHERE or name in inspect.signature(load).parameters
    instead = _ELSEWHERE.get(name, f"{name}=")
    return f" {name} is for loading, by decodekit.load: use {instead}." if known else ""


def device_of(device_map: Any) -> torch.device:
    """The device that the model, or its first part, goes to."""
    first = next(iter(device_map.values()), None) if isinstance(device_map, dict) else device_map
    if first is None or first in ("auto", "balanced", "balanced_low_0", "sequential"):
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(first)
    except (RuntimeError, TypeError) as error:
        message = (
            f"device_map={device_map!r} is not a device such as 'cpu' or 'cuda:0', 'auto', or a dict of them"
        )
        raise ParameterError(message) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        there = ["'cpu'", *(f"'cuda:{index}'" for index in range(torch.cuda.device_count()))]
        message = f"device_map={device_map!r} is not there: this machine has {', '.join(there)}"
        raise ParameterError(message)
    return device


def _dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    if dtype == "auto" or isinstance(dtype, torch.dtype):
        return dtype
    if dtype in _DTYPES:
        return _DTYPES[dtype]
    message = f"dtype={dtype!r} is not allowed: dtype must be 'auto', {', '.join(map(repr, _DTYPES))}"
    raise ParameterError(message + "." + nearest(str(dtype), _DTYPES))


def _explained(name: str, error: Exception) -> ModelNotFoundError:
    """What transformers says at length, in one line."""
    reason = " ".join(str(error).split())
    where = f"the model in {name}" if Path(name).is_dir() else f"the model {name!r}"
    return ModelNotFoundError(f"{where} can't be loaded: {reason}")


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
        for storage in (tensor.untyped_storage() for tensor in tensors_of(owner))
    }
    return sum(storages.values())


def tensors_of(owner: Any, depth: int = 3) -> Iterator[Tensor]:
    """A tensor, and those among its attributes: scales, code books, scales of the scales."""
    if isinstance(owner, Tensor) and not is_traceable_wrapper_subclass(owner):  # those hold others only
        yield owner
    if depth and not isinstance(owner, nn.Module):  # a parameter may point back at its module
        for value in getattr(owner, "__dict__", {}).values():
            yield from tensors_of(value, depth - 1)

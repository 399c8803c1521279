"""Whether a model fits into memory, and what would fit instead."""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from decodekit.errors import DecodekitError, ModelTooLargeError

if TYPE_CHECKING:
    from decodekit.quant_backend import QuantBackend

__all__ = ["available_bytes", "check_fits", "is_out_of_memory", "needed_bytes", "too_large"]

_WORTH_A_LOOK = 0.25  # smaller models than this share of the memory fit whatever they are loaded as
_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def available_bytes(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where nobody says."""
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError):
            return int(torch.cuda.mem_get_info(device)[0])
        return None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return 1024 * (kilobytes.get("MemAvailable", 0) + kilobytes.get("SwapFree", 0))


def needed_bytes(config: Any, dtype: torch.dtype, bits: float | None, **keywords: Any) -> int:
    """Bytes of a model's parameters, computed from its configuration without allocating them.

    Args:
        config: of the model.
        dtype: of all that is not quantized.
        bits: of one quantized linear weight; None when nothing is quantized.
        **keywords: for ``from_config``.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, **keywords)
    plain: int = sum(parameter.numel() for parameter in model.parameters())
    if bits is None:
        return plain * dtype.itemsize
    head = model.get_output_embeddings()
    linear = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    return int((plain - linear) * dtype.itemsize + linear * bits / 8)


def check_fits(
    name: str, config: Any, dtype: torch.dtype, backend: "QuantBackend", device: torch.device
) -> None:
    """Refuse a local model that is larger than what is free: the system would end the process instead.

    Raises:
        ModelTooLargeError: what it needs, what is free, and what would fit.
    """
    free = available_bytes(device)
    files = [file for end in ("safetensors", "bin") for file in Path(name).glob(f"*.{end}")]
    on_disk = sum(os.path.getsize(file) for file in files)
    if free is None or on_disk < _WORTH_A_LOOK * free:
        return
    if needed_bytes(config, dtype, _bits(backend)) > free:
        raise too_large(name, config, dtype, backend, device)


def too_large(
    name: str, config: Any, dtype: torch.dtype, backend: "QuantBackend", device: torch.device
) -> ModelTooLargeError:
    """The error for a model that does not fit, with the dtypes and backends of which one would."""
    from decodekit.registry import registry

    free = available_bytes(device)
    needed = needed_bytes(config, dtype, _bits(backend))
    options = {}
    if dtype.itemsize > 2:
        options["dtype='bfloat16'"] = needed_bytes(config, torch.bfloat16, _bits(backend))
    for entries in registry().entries("quant_backends").values():
        with contextlib.suppress(DecodekitError, TypeError):
            other = entries[0].cls()
            if other.NAME != backend.NAME and _bits(other) is not None and not other.problems(device):
                options[f"quant={other.NAME!r}"] = needed_bytes(config, dtype, _bits(other))
    limit = free if free is not None else needed - 1
    fitting = [f"{option} ({_said(size)})" for option, size in options.items() if size <= limit]
    others = " or ".join(fitting) if fitting else "nothing that is installed makes it small enough"
    message = (
        f"{name} does not fit: with quant={backend.NAME!r} and {str(dtype).removeprefix('torch.')} its "
        f"weights take {_said(needed)}, and {device} has {_said(free)} free. What would fit: {others}. "
        "device_map='auto' spreads a model over all devices"
    )
    return ModelTooLargeError(message)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short; on a CPU torch raises a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)
    )


def _bits(backend: "QuantBackend") -> float | None:
    return backend.LAWS.bits


def _said(size: int | None) -> str:
    return "an unknown number of bytes" if size is None else f"{size / 1e9:.2f} GB"

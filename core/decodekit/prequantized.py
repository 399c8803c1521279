"""Checkpoints that are quantized already: what their method needs, and whether a request fits them."""

import importlib.util
import json
from typing import Any

import attrs
import torch

from decodekit.errors import CapabilityError, MissingLibraryError, nearest

__all__ = ["METHODS", "Method", "check_prequantized", "method_of", "own_configuration"]


@attrs.frozen
class Method:
    """A quantization method that transformers can load.

    Attributes:
        requires: libraries, as import name -> pip requirement.
        devices: types of devices that it runs on.
    """

    requires: dict[str, str] = attrs.field(factory=dict)
    devices: tuple[str, ...] = ("cpu", "cuda")


_ACCELERATE = {"accelerate": "accelerate>=1.10"}
_GPTQMODEL = {"gptqmodel": "gptqmodel>=1.4.3", "optimum": "optimum>=1.24"}
_KERNELS = {"kernels": "kernels>=0.18.2"}
_CUDA = ("cuda",)

# The names are those of `quant_method` in a checkpoint's config.json.
METHODS: dict[str, Method] = {
    "aqlm": Method({"aqlm": "aqlm[gpu,cpu]>=1.1"} | _ACCELERATE),
    "auto-round": Method({"auto_round": "auto-round>=0.5"}),
    "awq": Method({"gptqmodel": "gptqmodel>=1.4.3"} | _ACCELERATE),
    "bitnet": Method(_ACCELERATE),
    "bitsandbytes": Method({"bitsandbytes": "bitsandbytes>=0.50"} | _ACCELERATE),
    "compressed-tensors": Method({"compressed_tensors": "compressed-tensors>=0.15"}),
    "eetq": Method(_KERNELS | _ACCELERATE, _CUDA),
    "fbgemm_fp8": Method({"fbgemm_gpu": "fbgemm-gpu"} | _ACCELERATE, _CUDA),
    "fouroversix": Method({"fouroversix": "fouroversix"}),
    "fp8": Method(_ACCELERATE),
    "fp_quant": Method({"fp_quant": "fp_quant"}, _CUDA),
    "gemma": Method(),
    "gptq": Method(_GPTQMODEL),
    "higgs": Method({"flute": "flute-kernel>=0.3"} | _ACCELERATE, _CUDA),
    "hqq": Method({"hqq": "hqq>=0.2.1"}),
    "metal": Method(_KERNELS, ("mps",)),
    "mxfp4": Method(_ACCELERATE),
    "mxfp8": Method(_ACCELERATE),
    "nvfp4": Method(_KERNELS, _CUDA),
    "quanto": Method({"optimum.quanto": "optimum-quanto>=0.2.5"} | _ACCELERATE),
    "quark": Method({"quark": "amd-quark"}),
    "sinq": Method({"sinq": "sinq"}),
    "spqr": Method({"spqr_quant": "spqr_quant[gpu]"} | _ACCELERATE, _CUDA),
    "torchao": Method({"torchao": "torchao>=0.15"}),
    "vptq": Method({"vptq": "vptq>=0.0.4"} | _ACCELERATE, _CUDA),
}


def own_configuration(config: Any) -> dict[str, Any] | None:
    """The quantization that a checkpoint's configuration declares, or None."""
    own = getattr(config, "quantization_config", None)
    own = own or getattr(config.get_text_config(decoder=True), "quantization_config", None)
    return own if own is None or isinstance(own, dict) else own.to_dict()


def method_of(own: dict[str, Any]) -> str:
    """The name of a checkpoint's method; old ones of bitsandbytes leave it out."""
    if own.get("load_in_8bit") or own.get("load_in_4bit"):
        return "bitsandbytes"
    return str(own.get("quant_method"))


def check_prequantized(
    name: str, own: dict[str, Any], quant: str, requested: Any, device: torch.device
) -> None:
    """Refuse what can't be loaded: unknown methods, missing libraries, other devices, other requests.

    Args:
        name: the model, for messages.
        own: the quantization that the checkpoint declares.
        quant: the backend that was asked for, for messages.
        requested: its ``quantization_config``, or None when nothing was asked for.
        device: where the model shall be.

    Raises:
        CapabilityError: the method is unknown, does not run on the device, or is not the requested one.
        MissingLibraryError: a library of the method is not installed.
    """
    method = method_of(own)
    if method not in METHODS:
        message = f"{name} is quantized with {method!r}, which this transformers does not know."
        raise CapabilityError(message + nearest(method, METHODS))
    if requested is not None:
        _check_request(name, own, quant, requested)
    for library, requirement in METHODS[method].requires.items():
        if not _is_installed(library):
            message = (
                f"{name} is quantized with {method}, which needs the library {library}: "
                f"pip install '{requirement}'"
            )
            raise MissingLibraryError(message)
    if device.type not in METHODS[method].devices:
        devices = " or ".join(METHODS[method].devices)
        message = (
            f"{name} is quantized with {method}, which runs on {devices} and not on {device}: take another "
            "device_map, or the unquantized checkpoint with a backend of `decodekit quant`"
        )
        raise CapabilityError(message)


def _check_request(name: str, own: dict[str, Any], quant: str, requested: Any) -> None:
    """A checkpoint's own configuration wins; whoever asked for something else has to know."""
    mine, theirs = _plain(requested.to_dict()), _plain(own)
    if method_of(mine) != method_of(theirs):
        difference = f"with {method_of(theirs)}"
    else:
        keys = [key for key in mine if not key.startswith("_") and mine[key] != theirs.get(key)]
        if not keys:
            return
        pairs = ", ".join(f"{key}={theirs.get(key)!r} instead of {mine[key]!r}" for key in keys)
        difference = f"with {pairs}"
    message = (
        f"{name} is quantized already, {difference}, and its own configuration wins: quant={quant!r} "
        "can't be applied to it. Leave quant out, or give the unquantized checkpoint"
    )
    raise CapabilityError(message)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON would say it; an option that is off says the same as one that is absent."""
    found: dict[str, Any] = json.loads(
        json.dumps(values, default=lambda item: str(item).removeprefix("torch."))
    )
    return found


def _is_installed(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ModuleNotFoundError:  # the package above it is missing
        return False

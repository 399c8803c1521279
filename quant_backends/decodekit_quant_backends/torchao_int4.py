"""4-bit integer weights, by torchao."""

from typing import TYPE_CHECKING, Any

import attrs
import torch
from decodekit import CapabilityError, QuantBackend, QuantLaws, param

from decodekit_quant_backends._torchao import REQUIRES, check_converted, load_kwargs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["TorchaoInt4"]


@attrs.frozen
class TorchaoInt4(QuantBackend):
    """Round each linear weight to one of 16 equidistant values, with a scale and a zero a group.

    Source: torchao 0.18, ``Int4WeightOnlyConfig`` in the layout ``tile_packed_to_4d`` on CUDA, and its
        prototype with the same products on a CPU; Badri and Shaji 2023, "Half-Quadratic Quantization".
    Range: group_size 32, 64 or 128; algorithm tinygemm or hqq; skip_modules any names of modules.
    Needs: torchao and accelerate, on a CPU or a CUDA device of compute capability 8 with dtype bfloat16.
    Law: the forward is deterministic. A linear weight takes 4 bits and its share of a scale and a zero of
        the model's dtype: 5 bits in float32 and 4.5 in bfloat16 with groups of 64. Embeddings, norms, biases
        and the output layer keep their values. A CPU's layout can't be saved.
    Raises: MissingLibraryError, when a library is not installed; the message has the install line.
        CapabilityError, when group_size does not divide the inputs of a layer, or another dtype than
        bfloat16 is asked for on CUDA.
        ParameterError, when the model has no module of a name in skip_modules.
    """

    NAME = "torchao-int4"
    REQUIRES = REQUIRES
    LAWS = QuantLaws(bits=6.1, kl=0.25, noise=1e-3)

    group_size: int = param(64, choices=(32, 64, 128), help="Weights that share a scale and a zero.")
    algorithm: str = param(
        "tinygemm",
        choices=("tinygemm", "hqq"),
        help="Takes the group's extremes, or optimizes scale and zero.",
    )
    skip_modules: tuple[str, ...] = param(
        (), help="Names of modules that stay unquantized, as the output layer always does."
    )

    def problems(self, device: torch.device) -> list[str]:
        """As of every backend; a CUDA device has to be of compute capability 8 or more."""
        found = super().problems(device)
        if not found and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
            found.append("it needs a CUDA device of compute capability 8: take bnb-nf4 or torchao-int8")
        return found

    def load_kwargs(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """``quantization_config`` for ``from_pretrained``, in the layout of the device."""
        shared: dict[str, Any] = {"group_size": self.group_size, "set_inductor_config": False}
        shared["int4_choose_qparams_algorithm"] = self.algorithm
        if device.type == "cpu":
            from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

            return load_kwargs(PrototypeInt4WeightOnlyConfig(**shared), self.skip_modules)
        if dtype != torch.bfloat16:
            message = f"quant='torchao-int4' on {device} needs dtype='bfloat16', not {dtype}"
            raise CapabilityError(message)
        from torchao.quantization import Int4WeightOnlyConfig

        layout = Int4WeightOnlyConfig(int4_packing_format="tile_packed_to_4d", **shared)
        return load_kwargs(layout, self.skip_modules)

    def convert(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The model as it is, once no layer was left out in silence."""
        check_converted(model, self.skip_modules, self.group_size)
        return model

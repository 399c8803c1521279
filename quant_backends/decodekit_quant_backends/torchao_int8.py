"""8-bit integer weights, by torchao."""

from typing import TYPE_CHECKING, Any

import attrs
import torch
from decodekit import QuantBackend, QuantLaws, param

from decodekit_quant_backends._linears import check_skipped
from decodekit_quant_backends._torchao import REQUIRES, load_kwargs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["TorchaoInt8"]


@attrs.frozen
class TorchaoInt8(QuantBackend):
    """Round each linear weight to an 8-bit integer with one scale a row.

    Source: torchao 0.18, ``Int8WeightOnlyConfig``; symmetric round-to-nearest.
    Range: skip_modules any names of modules.
    Needs: torchao and accelerate, on a CPU or a CUDA device.
    Law: the forward is deterministic. A linear weight takes 8 bits and its share of a scale and a zero
        (40 bits a row); embeddings, norms, biases and the output layer keep their dtype and values.
    Raises: MissingLibraryError, when a library is not installed; the message has the install line.
        ParameterError, when the model has no module of a name in skip_modules.
    """

    NAME = "torchao-int8"
    REQUIRES = REQUIRES
    LAWS = QuantLaws(bits=8.4, kl=0.005, noise=1e-3, saves=True)

    skip_modules: tuple[str, ...] = param(
        (), help="Names of modules that stay unquantized, as the output layer always does."
    )

    def load_kwargs(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """``quantization_config`` for ``from_pretrained``."""
        from torchao.quantization import Int8WeightOnlyConfig

        return load_kwargs(Int8WeightOnlyConfig(set_inductor_config=False), self.skip_modules)

    def convert(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The model as it is, once all that was to be skipped is there."""
        check_skipped(model, self.skip_modules)
        return model

"""8-bit integer weights and activations, by torchao."""

from typing import TYPE_CHECKING, Any

import attrs
import torch
from decodekit import QuantBackend, QuantLaws, param

from decodekit_quant_backends._linears import check_skipped
from decodekit_quant_backends._torchao import REQUIRES, load_kwargs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["TorchaoInt8Dynamic"]


@attrs.frozen
class TorchaoInt8Dynamic(QuantBackend):
    """Multiply 8-bit integer weights by activations that are rounded to 8 bits, one scale a token.

    Source: torchao 0.18, ``Int8DynamicActivationInt8WeightConfig``; Yao et al. 2022, "ZeroQuant",
        arXiv:2206.01861, section 4.1 (token-wise activations), with one scale a row of a weight.
    Range: skip_modules any names of modules.
    Needs: torchao and accelerate, on a CPU or a CUDA device.
    Law: the forward is deterministic. A linear weight takes 8 bits and its share of a scale; embeddings,
        norms, biases and the output layer keep their values. An activation near the middle of two integers
        goes either way with the last bit of a float, so that logits from the cache differ a little from
        those of a whole forward pass.
    Raises: MissingLibraryError, when a library is not installed; the message has the install line.
        ParameterError, when the model has no module of a name in skip_modules.
    """

    NAME = "torchao-int8-dynamic"
    REQUIRES = REQUIRES
    LAWS = QuantLaws(bits=8.4, kl=0.01, noise=0.3, saves=True)

    skip_modules: tuple[str, ...] = param(
        (), help="Names of modules that stay unquantized, as the output layer always does."
    )

    def load_kwargs(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """``quantization_config`` for ``from_pretrained``."""
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig

        return load_kwargs(
            Int8DynamicActivationInt8WeightConfig(set_inductor_config=False), self.skip_modules
        )

    def convert(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The model as it is, once all that was to be skipped is there."""
        check_skipped(model, self.skip_modules)
        return model

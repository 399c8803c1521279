"""8-bit integer weights that a compiled step streams."""

from typing import TYPE_CHECKING

import attrs
import torch
from decodekit import QuantBackend, QuantLaws, param, wide_product, written_out
from torch import Tensor, nn

from decodekit_quant_backends._linears import replace_linears
from decodekit_quant_backends._packed import BYTES, as_words, int8_codes, products, reads_words

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Int8", "Int8Linear"]


@attrs.frozen
class Int8(QuantBackend):
    """Round each linear weight to an 8-bit integer with one scale a row, for ``compile=True``.

    Source: symmetric round-to-nearest, as of torchao's ``Int8WeightOnlyConfig``.
    Range: skip_modules any names of modules; output_layer true or false.
    Needs: nothing; runs on a CPU and on CUDA.
    Law: the forward is deterministic. A linear weight takes 8 bits and its share of a scale (32 bits a row);
        embeddings, norms and biases keep their values, and so does the output layer without
        ``output_layer``. Without ``compile=True`` weights are converted at every pass.
    Raises: ParameterError, when the model has no module of a name in skip_modules.
    """

    NAME = "int8"
    LAWS = QuantLaws(bits=8.4, kl=0.005, noise=1e-3, keeps_embeddings=False)

    skip_modules: tuple[str, ...] = param((), help="Names of modules that stay unquantized.")
    output_layer: bool = param(False, help="Quantize the output layer too, as a copy of tied embeddings.")

    def convert(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """Replace the linear layers, one by one."""
        return replace_linears(model, Int8Linear, self.skip_modules, self.output_layer)


class Int8Linear(nn.Module):
    """A linear layer whose weight is ``weight * scale``: int8 [N, K] and float32 [N]."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Round a layer's weight."""
        super().__init__()
        exact = linear.weight.detach().float()
        scale = exact.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", (exact / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., N] from [..., K]."""
        return wide_product(x, self.out_features, self._rows, self.bias)

    def _rows(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Some rows of the weight; scaled before the sum, which float16 might not hold."""
        return self.weight[rows].to(dtype).mul_(self.scale[rows, None].to(dtype))

    def stream(self, x: Tensor) -> Tensor:
        """[n, N] from n tokens [n, K], for a compiled step."""
        if reads_words(x) and self.in_features % BYTES == 0:
            by_byte = written_out(x.view(len(x), -1, BYTES).transpose(1, 2))
            codes = int8_codes(as_words(self.weight))
            return torch.stack([products(codes, token) for token in by_byte]) * self.scale
        weight = self.weight.to(x.dtype)
        return torch.stack([(weight * token).sum(-1) for token in x]) * self.scale

"""4-bit integer weights that a compiled step streams."""

import functools
from typing import TYPE_CHECKING

import attrs
import torch
from decodekit import QuantBackend, QuantLaws, param, wide_product, written_out
from torch import Tensor, nn

from decodekit_quant_backends._linears import check_groups, replace_linears
from decodekit_quant_backends._packed import BYTES, as_words, int4_codes, products, reads_words

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Int4", "Int4Linear"]


@attrs.frozen
class Int4(QuantBackend):
    """Round each linear weight to one of 16 equidistant values from a group's least to its largest.

    Source: round-to-nearest, as of GGUF's ``Q4_1``, with groups of two sizes; made for ``compile=True``.
    Range: group_size 32 or 64; skip_modules any names of modules; output_layer true or false.
    Needs: nothing; runs on a CPU and on CUDA.
    Law: the forward is deterministic. A linear weight takes 4 bits and its share of a scale and a least value
        (16 bits each): 5 bits in groups of 32. Embeddings, norms and biases keep their values, and so does
        the output layer without ``output_layer``. Without ``compile=True`` weights are converted at every
        pass, which is slow.
    Raises: CapabilityError, when two groups do not divide the inputs of a layer.
        ParameterError, when the model has no module of a name in skip_modules.
    """

    NAME = "int4"
    LAWS = QuantLaws(bits=5.2, kl=0.25, noise=1e-3, keeps_embeddings=False)

    group_size: int = param(32, choices=(32, 64), help="Weights that share a scale and a least value.")
    skip_modules: tuple[str, ...] = param((), help="Names of modules that stay unquantized.")
    output_layer: bool = param(False, help="Quantize the output layer too, as a copy of tied embeddings.")

    def convert(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """Replace the linear layers, one by one."""
        check_groups(model, self.skip_modules, self.output_layer, 2 * self.group_size)
        make = functools.partial(Int4Linear, group_size=self.group_size)
        return replace_linears(model, make, self.skip_modules, self.output_layer)


class Int4Linear(nn.Module):
    """A linear layer whose weight is ``code * scale + least``.

    The codes are 0 to 15, two in a byte of uint8 [N, K / 2]: the lower one is of the first half of the
    columns, the higher one of the second. Scale and least value are float16 [N, K / group_size].
    """

    weight: Tensor
    scale: Tensor
    least: Tensor

    def __init__(self, linear: nn.Linear, group_size: int) -> None:
        """Round a layer's weight."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        groups = linear.weight.detach().float().reshape(self.out_features, -1, group_size)
        least = groups.amin(-1).half()
        span = groups.amax(-1) - least.float()
        scale = (span / 15).half().clamp(min=torch.finfo(torch.float16).tiny)
        codes = ((groups - least.float()[..., None]) / scale.float()[..., None]).round().clamp(0, 15)
        low, high = codes.to(torch.uint8).flatten(1).chunk(2, dim=1)
        self.register_buffer("weight", low | (high << 4))
        self.register_buffer("scale", scale)
        self.register_buffer("least", least)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., N] from [..., K]."""
        return wide_product(x, self.out_features, self._rows, self.bias)

    def stream(self, x: Tensor) -> Tensor:
        """[n, N] from n tokens [n, K], for a compiled step."""
        if reads_words(x):
            return self._in_words(x)
        low, high = self._halves(x.dtype)
        first, second = x.chunk(2, dim=1)
        return torch.stack([(low * one + high * two).sum(-1) for one, two in zip(first, second, strict=True)])

    def _in_words(self, x: Tensor) -> Tensor:
        """`stream` by words of four bytes, whose codes of one half are in one group."""
        count, groups = len(x), self.scale.shape[1]
        words = as_words(self.weight).view(self.out_features, groups // 2, -1)
        codes = [int4_codes(words, half) for half in range(2)]
        # The groups of the first half of the columns, then those of the second.
        grouped = x.view(count, groups, -1, BYTES)
        by_byte = written_out(grouped.view(count, 2, groups // 2, -1, BYTES).permute(0, 1, 4, 2, 3))
        totals = written_out(grouped.sum((-1, -2)))
        scale, least = self.scale.float(), self.least.float()
        results = []
        for token in range(count):
            of_codes = [products(own, by_byte[token, half]) for half, own in enumerate(codes)]
            results.append((torch.cat(of_codes, dim=1) * scale + totals[token] * least).sum(-1))
        return torch.stack(results)

    def _rows(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Some rows of the weight."""
        weight, scale, least = (own[rows] for own in (self.weight, self.scale, self.least))
        codes = torch.cat([weight & 15, weight >> 4], dim=1).view(*scale.shape, -1).to(dtype)
        return codes.mul_(scale.to(dtype)[..., None]).add_(least.to(dtype)[..., None]).flatten(1)

    def _halves(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The weight's first and last K / 2 columns."""
        size = self.in_features // self.scale.shape[1]
        codes = (self.weight & 15).to(dtype), (self.weight >> 4).to(dtype)
        scales, leasts = (
            values.to(dtype)[..., None].expand(*values.shape, size).flatten(1).chunk(2, dim=1)
            for values in (self.scale, self.least)
        )
        low, high = (code * scale + least for code, scale, least in zip(codes, scales, leasts, strict=True))
        return low, high

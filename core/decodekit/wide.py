"""Products of many tokens with weights of half precision, on a CPU that can't calculate in it.

Where torch has no fast product of bfloat16 or float16, as on CPUs without AVX-512, it multiplies number by
number, five times as slowly as in float32. Here some rows of a weight at a time are made float32, so that
the copy stays in the processor's cache. Sums are float32 either way, and results are rounded once.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

__all__ = ["WideLinear", "has_arithmetic", "wide_product"]

_FEWEST = 8
"""Tokens; torch's own product takes a time for each of them, and from here on more than the conversion."""
_SLICE = 1 << 20
"""Numbers of a weight that are converted at once."""

_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own gap
_CALCULATES = {  # what torch asks itself before it gives a product to oneDNN
    torch.bfloat16: _ONEDNN and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    torch.float16: _ONEDNN and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported()),
}
"""Whether this CPU has a fast product of a type."""


def has_arithmetic(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device has a fast product of a type, or one that is not made faster here."""
    return device.type != "cpu" or _CALCULATES.get(dtype, True)


def wide_product(
    x: Tensor, rows: int, weight: Callable[[slice, torch.dtype], Tensor], bias: Tensor | None = None
) -> Tensor:
    """A linear layer [..., N] of activations ``x`` [..., K], whose weight [N, K] is converted for it.

    In the type of ``x`` at once; where the CPU has no fast product of that type, and there are 8 tokens or
    more, in float32 by some rows at a time. For the ``forward`` of quantized linear layers.

    Args:
        x: of a floating type, which is that of the result too.
        rows: N.
        weight: gives the rows of a slice as a tensor of the type that is asked for.
        bias: [N], which is added before the result is rounded.
    """
    size = x.shape[-1]
    few = x.numel() < _FEWEST * size or not (rows and size)
    if few or has_arithmetic(x.device, x.dtype):
        return nn.functional.linear(x, weight(slice(None), x.dtype), bias)
    result, wide = x.new_empty(*x.shape[:-1], rows), x.float()
    step = max(_SLICE // size, 1)
    for first in range(0, rows, step):
        part = slice(first, first + step)
        added = bias[part].float() if bias is not None else None
        result[..., part] = nn.functional.linear(wide, weight(part, torch.float32), added)
    return result


class WideLinear(nn.Module):
    """Another linear layer, whose products go by `wide_product`."""

    def __init__(self, linear: nn.Module) -> None:
        """Stand in for a linear layer with an ordinary weight (`decodekit.streamed.is_plain_linear`)."""
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """[..., N] from [..., K]."""
        weight = cast("Tensor", self.linear.weight)  # as it is now: training may put another in its place
        weight = weight.t() if isinstance(self.linear, Conv1D) else weight
        bias = cast("Tensor | None", self.linear.bias)
        return wide_product(x, len(weight), lambda rows, dtype: weight[rows].to(dtype), bias)

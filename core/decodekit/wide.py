"""Products of many tokens with weights of half precision, on a CPU that can't calculate in it.

Without AVX-512 torch multiplies bfloat16 and float16 number by number, five times as slowly as float32. Here
some rows of a weight at a time are made float32, so that the copy stays in the processor's cache. The sums
are float32 either way; only their order differs.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

__all__ = ["WideLinear", "has_arithmetic", "wide_product"]

_FEWEST = 8
"""Tokens; torch's own product takes a time for each of them, and from here on more than the conversion."""
_SLICE = 1 << 20
"""Numbers of a weight that are converted at once."""


def has_arithmetic(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device calculates in a type, as fast as in float32 or faster."""
    if device.type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return True
    return torch.backends.cpu.get_cpu_capability() != "AVX2"


def wide_product(x: Tensor, rows: int, weight: Callable[[slice, torch.dtype], Tensor]) -> Tensor:
    """The products [..., N] of activations ``x`` [..., K] with a weight [N, K] that is converted for them.

    In the type of ``x`` at once; where the CPU has no arithmetic for that type, and there are 8 tokens or
    more, in float32 by some rows at a time. For the ``forward`` of quantized linear layers.

    Args:
        x: of a floating type, which is that of the result too.
        rows: N.
        weight: gives the rows of a slice as a tensor of the type that is asked for.
    """
    size = x.shape[-1]
    if has_arithmetic(x.device, x.dtype) or x.numel() < _FEWEST * size or not (rows and size):
        return linear(x, weight(slice(None), x.dtype))
    wide, step = x.float(), max(_SLICE // size, 1)
    parts = [
        linear(wide, weight(slice(first, first + step), torch.float32)) for first in range(0, rows, step)
    ]
    return torch.cat(parts, dim=-1).to(x.dtype)


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
        result = wide_product(x, len(weight), lambda rows, dtype: weight[rows].to(dtype))
        bias = cast("Tensor | None", self.linear.bias)
        return result if bias is None else result + bias

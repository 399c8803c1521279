"""Products with weights of 8 or 4 bits that are read by words of four bytes.

On a CPU with AVX2 torch's compiler loads single bytes by way of the stack, which takes longer than all
arithmetic. Of a word it loads eight at once, and the codes are taken out of it by shifts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["BYTES", "as_words", "int4_codes", "int8_codes", "products", "reads_words"]

BYTES = 4
"""Of a word."""


def reads_words(x: Tensor) -> bool:
    """Whether the step on activations ``x`` is compiled for AVX2, as torch says of this CPU."""
    return x.is_cpu and torch.backends.cpu.get_cpu_capability() == "AVX2"


def as_words(weight: Tensor) -> Tensor:
    """A weight of single bytes [N, K] as int32 [N, K / 4], the first byte in the lowest bits."""
    return weight.view(torch.float32).view(torch.int32)  # loaded as floats: integers go by the stack, too


def int8_codes(words: Tensor) -> list[Tensor]:
    """The signed bytes of words, lowest first, as float32: shifted up, and down again with their sign."""
    return [((words << (24 - 8 * byte)) >> 24).float() for byte in range(BYTES)]


def int4_codes(words: Tensor, half: int) -> list[Tensor]:
    """The lower (``half`` 0) or the higher 4 bits of each byte of words, lowest byte first, as float32."""
    return [((words >> (8 * byte + 4 * half)) & 15).float() for byte in range(BYTES)]


def products(codes: Sequence[Tensor], activations: Tensor) -> Tensor:
    """The sums over K of codes [N, ..., K] times ``activations`` [BYTES, ..., K] of one token, float32."""
    total = codes[0] * activations[0]
    for code, own in zip(codes[1:], activations[1:], strict=True):
        total = total + code * own
    return total.sum(-1)

"""Exponential noise as torch draws it, with no more logarithms than are asked for.

torch fills a tensor on the CPU from 64-bit numbers of its Mersenne twister and takes the logarithm of every
one: nine tenths of the time of `exponential_` go into logarithms at which a draw from a few tokens never
looks. Here the same numbers are kept as integers, and logarithms are taken of those that are asked for. The
generator's state afterwards is the same, and so are the values: torch's vectorised logarithm may differ from
the C library's, which `exponential_` takes, in the last bit of a double, and the values are floats. Where all
of them are asked for, its speed alone halves the time.
"""

import functools

import torch
from torch import Tensor

__all__ = ["Words", "exponentials", "knows_torch"]


@functools.cache
def knows_torch() -> bool:
    """Whether this torch draws as described above; asked once, of a generator of its own."""
    mine, theirs = torch.Generator().manual_seed(42), torch.Generator().manual_seed(42)
    for count in (1, 1_000):
        wanted = torch.empty(count).exponential_(generator=theirs)
        found = Words(count, mine).exponential(torch.arange(count))
        if not (torch.equal(found, wanted) and torch.equal(mine.get_state(), theirs.get_state())):
            return False
    return True


class Words:
    """What the twister gives out for ``torch.empty(count).exponential_()``, taken from the generator at once.

    Args:
        count: how many values the generator is to give out.
        generator: one of the CPU; left out, the global one.
    """

    def __init__(self, count: int, generator: torch.Generator | None = None) -> None:
        self._words = torch.empty(count + 1, dtype=torch.long)  # one more, for the place after the last
        _words(self._words[:count], generator)

    def exponential(self, places: Tensor) -> Tensor:
        """The values at places in [0, count], float32 of the shape of ``places``; at the last it is any."""
        return _exponential(self._words[places])


def exponentials(count: int) -> Tensor:
    """All of ``torch.empty(count).exponential_()``, from the global generator."""
    return _exponential(_words(torch.empty(count, dtype=torch.long)))


def _words(into: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The next numbers of the twister, all 64 bits of each."""
    return into.random_(-(2**63), None, generator=generator)


def _exponential(words: Tensor) -> Tensor:
    """What torch makes of numbers of the twister, which may be overwritten; float32."""
    bits = words.bitwise_and_(2**53 - 1)
    return bits.double().mul_(-(2.0**-53)).log1p_().neg_().float()

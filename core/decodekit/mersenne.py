"""Single values of a large tensor of exponential noise, without computing the others.

torch fills a tensor on the CPU from 64-bit numbers of its Mersenne twister and takes the logarithm of every
one: three quarters of the time of `exponential_` go into logarithms at which a draw from a few tokens never
looks. Here numpy runs the same twister on, and takes the logarithms that are asked for. The values, and
the generator's state afterwards, are the same to the bit.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["Words", "knows_torch"]

_BYTES, _LEFT, _NEXT, _KEY, _SIZE = 5056, 8, 16, 24, 624
"""How the state that torch hands out is laid out: its length, and where numbers begin."""


@functools.cache
def knows_torch() -> bool:
    """Whether this torch draws as described above; asked once, of a generator of its own."""
    mine, theirs = torch.Generator().manual_seed(42), torch.Generator().manual_seed(42)
    if len(mine.get_state()) != _BYTES:
        return False
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
        generator = torch.default_generator if generator is None else generator
        state = generator.get_state()
        raw = state.numpy()
        twister = np.random.MT19937(0)
        left = int(raw[_LEFT : _LEFT + 4].view(np.int32)[0])
        key = raw[_KEY : _KEY + 8 * _SIZE].view(np.uint64).astype(np.uint32)
        twister.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": _SIZE + 1 - left}}
        words = np.random.Generator(twister).integers(0, 2**32, dtype=np.uint32, size=2 * count)
        after = twister.state["state"]
        raw[_LEFT : _LEFT + 4].view(np.int32)[0] = _SIZE + 1 - after["pos"]
        raw[_NEXT : _NEXT + 8].view(np.uint64)[0] = after["pos"]
        raw[_KEY : _KEY + 8 * _SIZE].view(np.uint64)[:] = after["key"]
        generator.set_state(state)
        self._words = words.reshape(count, 2)

    def exponential(self, places: Tensor) -> Tensor:
        """The values at some places, int64 in [0, count): float32 of the shape of ``places``."""
        high, low = self._words[places.flatten().numpy()].astype(np.uint64).T
        uniform = (((high << np.uint64(32)) | low) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53
        # By the C library's function, as torch does here; a vectorised one may differ in the last bit.
        values = [-math.log1p(-u) for u in uniform.tolist()]
        return torch.tensor(values, dtype=torch.float64).float().view(places.shape)

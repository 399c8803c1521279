"""Random draws: positional under a seed, transformers' own without one.

A draw is a race of exponentials: with ``E ~ Exp(1)`` for each token, ``argmax p / E`` is a draw from
``p`` (the exponential form of the Gumbel-max trick; Yellott 1977; Maddison et al. 2014,
arXiv:1411.0030). It is also what ``torch.multinomial`` does for one sample, so that the noise alone
decides whether a call repeats transformers' tokens or its own seeded ones.
"""

import enum
import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import attrs
import numpy as np
import torch
from torch import Tensor

from decodekit.errors import ParameterError
from decodekit.head import argmax
from decodekit.mersenne import Words, exponentials, knows_torch

__all__ = ["Field", "GlobalNoise", "Noise", "Purpose", "SeededNoise", "Stream", "prompt_seeds", "race"]

_CPU = torch.device("cpu")
_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, the odd constant of splitmix64, as a signed int64
_MIX_A = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_B = -7723592293110705685  # 0x94D049BB133111EB

_Words = TypeVar("_Words", Tensor, np.ndarray)  # int64; numpy where there are few, as it begins sooner


class Purpose(enum.IntEnum):
    """What a draw is for; two purposes at one position are independent."""

    TOKEN = 0
    DRAFT = 1
    ACCEPT = 2
    RESIDUAL = 3
    RESAMPLE = 4


def _shift_right(x: _Words, bits: int) -> _Words:
    """Logical shift of an int64 (``>>`` keeps the sign)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: _Words) -> _Words:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014, section 5), a bijection of int64."""
    x = (x ^ _shift_right(x, 30)) * _MIX_A
    x = (x ^ _shift_right(x, 27)) * _MIX_B
    return x ^ _shift_right(x, 31)  # type: ignore[no-any-return]  # numpy's operators give Any


def _absorb(key: _Words, word: _Words) -> _Words:
    return _mix((key + _GOLDEN) ^ _mix(word + _GOLDEN))


def _to_uniform(bits: Tensor) -> Tensor:
    """52 random bits as a float64 strictly between 0 and 1; with 53 the largest would round to 1."""
    return (_shift_right(bits, 12).double() + 0.5) * 2.0**-52


class Stream(Protocol):
    """What names the random stream of a row."""

    seed: int
    lane: int
    slot: int


class Field(Protocol):
    """The noise of one draw of B rows: Exp(1) for each token, computed where it is looked at."""

    def dense(self, rows: Sequence[int] | None = None) -> Tensor:
        """The noise of every token of some of the rows, [b, V], or of all."""
        ...

    def at(self, rows: Sequence[int], ids: Tensor) -> Tensor:
        """The noise of the tokens int64 [b, C] of some of the rows, [b, C]; that of the id V is any."""
        ...


class Noise(Protocol):
    """Where the noise of a call comes from; one implementation is chosen a call."""

    def field(
        self,
        rows: Sequence[Stream],
        positions: Sequence[int],
        vocab_size: int,
        purpose: Purpose,
        device: torch.device = _CPU,
    ) -> Field:
        """The Exp(1) noise of one draw; see `exponential`."""
        ...

    def exponential(
        self,
        rows: Sequence[Stream],
        positions: Sequence[int],
        vocab_size: int,
        purpose: Purpose,
        device: torch.device = _CPU,
    ) -> Tensor:
        """Exp(1) noise [B, V], for the rows at the absolute positions, B of them."""
        return self.field(rows, positions, vocab_size, purpose, device).dense()

    def uniform(
        self, rows: Sequence[Stream], positions: Sequence[int], purpose: Purpose, device: torch.device = _CPU
    ) -> Tensor:
        """Uniform noise float64 [B] in the open interval (0, 1)."""
        ...


class SeededNoise(Noise):
    """Noise that is a function of (seed, lane, position, purpose, token) alone.

    The lane tells the rows of one prompt apart. Batching, padding, compaction, drafting and the number
    of processes can't change a draw, and it is the same on every device up to the rounding of a logarithm.
    """

    def _bits(
        self, rows: Sequence[Stream], positions: Sequence[int], purpose: Purpose, device: torch.device
    ) -> Tensor:
        names = [
            (row.seed % 2**64, row.lane, position, purpose)
            for row, position in zip(rows, positions, strict=True)
        ]
        seeds, *words = np.array(names, np.uint64).T.view(np.int64)
        key = functools.reduce(_absorb, words, _mix(seeds))
        return torch.from_numpy(key).to(device, non_blocking=True)

    def field(
        self,
        rows: Sequence[Stream],
        positions: Sequence[int],
        vocab_size: int,
        purpose: Purpose,
        device: torch.device = _CPU,
    ) -> "_SeededField":
        """The Exp(1) noise of one draw, float64."""
        return _SeededField(self._bits(rows, positions, purpose, device), vocab_size)

    def uniform(
        self, rows: Sequence[Stream], positions: Sequence[int], purpose: Purpose, device: torch.device = _CPU
    ) -> Tensor:
        """Uniform noise, float64 [B]."""
        return _to_uniform(self._bits(rows, positions, purpose, device))


@attrs.frozen(eq=False)
class _SeededField:
    """Noise that is a function of the bits [B] of each row and position, and of the token."""

    bits: Tensor
    vocab_size: int

    def dense(self, rows: Sequence[int] | None = None) -> Tensor:
        bits = self.bits if rows is None else self.bits[list(rows)]
        return self._of(bits[:, None], torch.arange(self.vocab_size, device=self.bits.device))

    def at(self, rows: Sequence[int], ids: Tensor) -> Tensor:
        return self._of(self.bits[list(rows), None], ids)

    def _of(self, bits: Tensor, tokens: Tensor) -> Tensor:
        return -torch.log(_to_uniform(_absorb(bits, tokens)))


class GlobalNoise(Noise):
    """Noise from torch's global generator, consumed as transformers consumes it.

    transformers draws one exponential for every token of every row at every step, also for rows that
    have finished; so the noise is drawn for the batch as it started and then indexed by the row's slot.
    """

    def __init__(self, slots: int) -> None:
        """Remember the size of the batch as it started."""
        self._slots = slots

    def field(
        self,
        rows: Sequence[Stream],
        positions: Sequence[int],
        vocab_size: int,
        purpose: Purpose,
        device: torch.device = _CPU,
    ) -> "_GlobalField":
        """The Exp(1) noise of one draw, float32."""
        slots = [row.slot for row in rows]
        return _GlobalField(slots, (max(self._slots, max(slots) + 1), vocab_size), device)

    def uniform(
        self, rows: Sequence[Stream], positions: Sequence[int], purpose: Purpose, device: torch.device = _CPU
    ) -> Tensor:
        """Uniform noise, float64 [B]."""
        slots = [row.slot for row in rows]
        noise = torch.rand(max(self._slots, max(slots) + 1), device=device, dtype=torch.float64)
        return noise.clamp_min_(2.0**-54)[slots]


_FEW = 256
"""So many logarithms cost no more than to take the twister's numbers by other means."""
_MANY = 1 << 10
"""More of them take less time by other means, even if every one is asked for."""


class _GlobalField:
    """Noise that the global generator gives out once for all slots, at the first look."""

    def __init__(self, slots: list[int], size: tuple[int, int], device: torch.device) -> None:
        self._slots, self._size, self._device = slots, size, device
        self._all: Tensor | None = None
        self._words: Words | None = None
        self._before: Tensor | None = None

    def dense(self, rows: Sequence[int] | None = None) -> Tensor:
        if self._all is None:
            if self._before is not None:  # single values were given out: all of them are the same once more
                torch.set_rng_state(self._before)
            self._all = self._exponentials()
        slots = self._slots if rows is None else [self._slots[row] for row in rows]
        return self._all if slots == [*range(self._size[0])] else self._all[slots]

    def _exponentials(self) -> Tensor:
        count, vocab_size = self._size
        if count * vocab_size > _MANY and self._device.type == "cpu" and knows_torch():
            return exponentials(count * vocab_size).view(self._size)
        return torch.empty(self._size, device=self._device).exponential_(1)

    def at(self, rows: Sequence[int], ids: Tensor) -> Tensor:
        count, vocab_size = self._size
        if self._all is None and count * vocab_size > _FEW and ids.is_cpu and knows_torch():
            if self._words is None:
                self._before, self._words = torch.get_rng_state(), Words(count * vocab_size)
            starts = torch.tensor([[self._slots[row] * vocab_size] for row in rows])
            return self._words.exponential(starts + ids)
        return self.dense(rows).gather(1, ids.clamp(max=vocab_size - 1))


def race(scores: Tensor, noise: Tensor, p: Tensor | None = None) -> Tensor:
    """Draw one token a row by the race of exponentials; a token of probability 0 never wins.

    Args:
        scores: [B, V], unnormalised log-probabilities; -inf is probability 0.
        noise: Exp(1) noise [B, V].
        p: the probabilities [B, V], when they are known already.

    Returns:
        int64 [B]; ties go to the lowest index.
    """
    ratio = (scores.softmax(-1) if p is None else p) / noise.to(scores.device)
    return argmax(ratio.masked_fill(scores == -math.inf, -1.0))


def _plain(value: Any) -> Any:
    """The Python number or list of a scalar or array of numpy or torch."""
    return value.tolist() if hasattr(value, "tolist") else value


def prompt_seeds(seed: int | Sequence[int], prompts: int) -> list[int]:
    """One seed a prompt: an int is every prompt's, a list names one each.

    Raises:
        ParameterError: the list has another length than the batch, or holds something that is no int.
    """
    seed = _plain(seed)
    if type(seed) is int:
        return [seed] * prompts
    seed = [_plain(item) for item in seed] if isinstance(seed, (list, tuple)) else seed
    if not isinstance(seed, Sequence) or isinstance(seed, str) or not all(type(item) is int for item in seed):
        message = f"seed={seed!r} is not allowed: seed must be an int, a list of ints (one a prompt), or None"
        raise ParameterError(message)
    if len(seed) != prompts:
        message = (
            f"seed has {len(seed)} values for {prompts} prompts: give one a prompt, or a single int for all"
        )
        raise ParameterError(message)
    return list(seed)

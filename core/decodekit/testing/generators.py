"""Hypothesis strategies for logits, histories and ragged batches of prompts.

A value is made of choices (a size, a kind, a seed for the many numbers of a tensor), and all its choices
are read from one string of bytes: to draw each of them by itself takes Hypothesis longer than most checks
take. Strategies are made once for each size of vocabulary, for the same reason.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor

from decodekit.errors import ParameterError
from decodekit.history import History
from decodekit.params import Interval, ParamInfo, build, params_of
from decodekit.processor import CallContext

__all__ = [
    "EXACT",
    "VOCAB_SIZES",
    "Choices",
    "chosen",
    "context_of",
    "contexts",
    "histories",
    "history_of",
    "instances",
    "logit_row",
    "logits",
    "pad_left",
    "parameter_values",
    "prompts",
    "vocab_sizes",
]

Made = TypeVar("Made")
Plugin = TypeVar("Plugin")
Sequences = Sequence[tuple[list[int], list[int]]]
LARGEST = 65_504.0
"""The largest number of float16."""
_SCALES = (1.0, 3.0, 0.01, 30.0, 1e4)
_KINDS = ("listed", "normal", "tied", "equal", "one finite", "largest")
_FAR = 1e3
"""How far values are drawn where a range has no end."""
EXACT = (torch.float32, torch.float64)


VOCAB_SIZES = [*range(2, 7)] * 12 + [*range(7, 65)]
"""Numbers of tokens from 2 to 64, half of them small."""
_LONGEST, _MOST = 8, 5
"""How long a prompt is at most, and what is generated after it."""
_CALL, _ROW = 14, 12
"""How many bytes the choices of a call take at most, and those of a row but for its tokens."""


def _size(bound: int) -> int:
    """How many bytes a number below a bound takes."""
    return max(1, -(-(bound - 1).bit_length() // 8))


class Choices:
    """Choices read from bytes; where those are 0, each is the first one.

    Hypothesis makes bytes smaller to find a smaller example.
    """

    def __init__(self, data: bytes) -> None:
        """Begin with the first byte; to read behind the last one is an `IndexError`."""
        self._data = data
        self._place = 0

    def below(self, bound: int) -> int:
        """A number from 0 to ``bound`` - 1."""
        number = 0
        for _ in range(_size(bound)):
            number = 256 * number + self._data[self._place]
            self._place += 1
        return number % bound

    def among(self, items: Sequence[Made]) -> Made:
        """One of the items."""
        return items[self.below(len(items))]

    def tokens(self, vocab_size: int, shortest: int, longest: int) -> list[int]:
        """So many token ids."""
        count = shortest + self.below(longest - shortest + 1)
        return [self.below(vocab_size) for _ in range(count)]

    def sequence(self, vocab_size: int, *, beyond: int = 0) -> tuple[list[int], list[int]]:
        """A prompt and what was generated after it.

        The prompt may hold ids up to ``vocab_size + beyond - 1``, as with embeddings larger than the head.
        """
        return self.tokens(vocab_size + beyond, 1, _LONGEST), self.tokens(vocab_size, 0, _MOST)

    def random(self) -> torch.Generator:
        """Where the many numbers come from."""
        return torch.Generator().manual_seed(self.below(1_000))


def chosen(
    make: Callable[[Choices], Made], rows: int, *, vocab_size: int, tokens: int = _LONGEST + _MOST
) -> st.SearchStrategy[Made]:
    """What is made of choices.

    Args:
        make: makes it.
        rows: how many rows it has at most.
        vocab_size: the most tokens to choose from.
        tokens: how many token ids a row has at most.
    """
    count = _CALL + rows * (_ROW + tokens * _size(vocab_size))
    return st.binary(min_size=count, max_size=count).map(lambda data: make(Choices(data)))


@functools.cache
def vocab_sizes() -> st.SearchStrategy[int]:
    """Numbers of tokens from 2 to 64, half of them small."""
    return st.sampled_from(VOCAB_SIZES)


def logits(
    vocab_size: int, rows: int, *, dtypes: Sequence[torch.dtype] = EXACT, distinct: bool = False
) -> st.SearchStrategy[Tensor]:
    """Logits [rows, vocab_size], each row of its own kind (see `logit_row`), in one of the dtypes."""

    def make(choices: Choices) -> Tensor:
        dtype = choices.among(dtypes)
        return torch.stack([logit_row(choices, vocab_size, distinct=distinct) for _ in range(rows)]).to(dtype)

    return chosen(make, rows, vocab_size=vocab_size, tokens=0)


def logit_row(choices: Choices, vocab_size: int, *, distinct: bool = False) -> Tensor:
    """One row of logits, float64 [vocab_size], with at least one finite logit.

    Kinds: small integers, normal numbers at scales from 0.01 to 1e4, exact ties (rounded to
    bfloat16), all equal, one finite, ±65,504; up to V - 1 logits of a row are -inf.

    Args:
        choices: where it comes from.
        vocab_size: V, at least 2.
        distinct: without ties, so that the order of the tokens is unique.
    """
    kind = "normal" if distinct else choices.among(_KINDS)
    holes = max(0, choices.below(2 * vocab_size - 1) - vocab_size + 1)  # of half of the rows none
    if kind == "listed" and vocab_size <= 6:
        row = torch.tensor([(0, 1, -1, 2, -2, 3, -3)[choices.below(7)] for _ in range(vocab_size)]).double()
        random = choices.random() if holes else None
    else:
        scale, random = choices.among(_SCALES), choices.random()
        row = torch.randn(vocab_size, generator=random, dtype=torch.float64) * scale
        row = _of_kind(kind, row.clamp(-LARGEST, LARGEST), random)
    if holes:
        order = torch.randperm(vocab_size, generator=random)
        order = order[torch.isfinite(row[order]).argsort(stable=True)]  # the last stays, and it is finite
        row[order[:holes]] = -torch.inf
    return row


def _of_kind(kind: str, row: Tensor, random: torch.Generator) -> Tensor:
    if kind == "tied":
        return row.bfloat16().double()
    if kind == "equal":
        return row[:1].repeat(len(row))
    if kind == "one finite":
        row[torch.randperm(len(row), generator=random)[1:]] = -torch.inf
    elif kind == "largest":
        row[:2] = torch.tensor([LARGEST, -LARGEST])
    return row


@functools.cache
def prompts(vocab_size: int, *, longest: int = _LONGEST) -> st.SearchStrategy[list[list[int]]]:
    """Ragged batches: lists of 1 to 4 prompts of 1 to ``longest`` token ids."""

    def make(choices: Choices) -> list[list[int]]:
        return [choices.tokens(vocab_size, 1, longest) for _ in range(1 + choices.below(4))]

    return chosen(make, 4, vocab_size=vocab_size, tokens=longest)


def histories(vocab_size: int, rows: int, *, beyond: int = 0) -> st.SearchStrategy[History]:
    """Histories of ``rows`` rows of `Choices.sequence`, padded on the left as in `history_of`."""

    def make(choices: Choices) -> History:
        drawn = [choices.sequence(vocab_size, beyond=beyond) for _ in range(rows)]
        return history_of(choices, vocab_size, drawn)

    return chosen(make, rows, vocab_size=vocab_size + beyond)


def history_of(choices: Choices, vocab_size: int, rows: Sequences) -> History:
    """The history of these sequences, with up to three needless columns and a real id as padding."""
    history = History.of([prompt for prompt, _ in rows], [generated for _, generated in rows])
    return pad_left(history, choices.below(4), choices.below(vocab_size))


def pad_left(history: History, columns: int, pad: int) -> History:
    """The same rows with more columns on the left, and ``pad`` in all that are not tokens."""
    tokens = history.tokens.masked_fill(~history.mask, pad)
    more = torch.full((len(history), columns), pad)
    return History(torch.cat([more, tokens], dim=1), history.pads + columns, history.prompt_lengths)


@functools.cache
def contexts(vocab_size: int) -> st.SearchStrategy[CallContext]:
    """What a call knows: the vocabulary, up to two EOS ids, and perhaps the most tokens of a row."""
    return chosen(lambda choices: context_of(choices, vocab_size), 0, vocab_size=vocab_size)


def context_of(choices: Choices, vocab_size: int) -> CallContext:
    """One of `contexts`."""
    ids = dict.fromkeys(choices.tokens(vocab_size, 0, 2))
    most = (vocab_size + len(ids)) % 7 or None  # not a choice: examples get smaller with it
    return CallContext(vocab_size=vocab_size, eos_token_ids=tuple(ids), max_new_tokens=most)


def parameter_values(info: ParamInfo) -> st.SearchStrategy[object] | None:
    """Allowed values of a parameter, from its choices or range; None when neither is known.

    A range without an end is drawn from up to a thousand beyond its other end.
    """
    if info.choices is not None:
        return st.sampled_from(info.choices)
    if info.type_name == "bool":
        return st.booleans()
    if info.range is None:
        return None if info.required else st.just(info.default)
    return _integers(info.range) if info.type_name == "int" else _floats(info.range)


def instances(
    cls: type[Plugin], name: str, fixed: Plugin | None, examples: Sequence[Mapping[str, Any]]
) -> st.SearchStrategy[Plugin]:
    """Instances of a plugin's class: the given one, or with parameters from the examples or their ranges.

    Args:
        cls: the class.
        name: what the error calls it.
        fixed: the only instance, when there is one.
        examples: parameter values to choose from.

    Raises:
        ParameterError: a parameter has neither a default nor a range, and there are no examples.
    """
    if fixed is not None:
        return st.just(fixed)
    if examples:
        return st.sampled_from(examples).map(lambda values: build(cls, values))
    values = {key: parameter_values(info) for key, info in params_of(cls).items()}
    unknown = [key for key, drawn in values.items() if drawn is None]
    if unknown:
        message = (
            f"{name} needs values of {unknown[0]}, which has no range: "
            f"pass examples=[{{{unknown[0]!r}: ...}}], or an instance"
        )
        raise ParameterError(message)
    return st.fixed_dictionaries(values).map(lambda drawn: cls(**drawn))  # type: ignore[arg-type]  # none is None


def _integers(interval: Interval) -> st.SearchStrategy[int]:
    """Most of them near the lower end, where they matter in a small vocabulary."""
    low, high = max(interval.low, -_FAR), min(interval.high, _FAR)
    first, last = int(low) + interval.low_open, int(high) - interval.high_open
    return st.integers(first, min(last, first + 5)) | st.integers(first, min(last, first + 70))


def _floats(interval: Interval) -> st.SearchStrategy[float]:
    low, high = interval.low, interval.high
    if low >= 0 and high == torch.inf:
        return st.floats(-3, 3).map(lambda exponent: low + 10.0**exponent)
    return st.floats(
        max(low, -_FAR),
        min(high, _FAR),
        exclude_min=interval.low_open,
        exclude_max=interval.high_open,
        allow_subnormal=False,
    )

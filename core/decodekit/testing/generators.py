"""Hypothesis strategies for logits, histories and ragged batches of prompts.

Each draws a few small things (a size, a seed, flags), so that examples are quick to make and to
shrink; the many numbers of a tensor come from the seed. Strategies are made once for each size of
vocabulary: to make and to validate one takes Hypothesis longer than to draw from it.
"""

import functools
from collections.abc import Mapping, Sequence
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
    "contexts",
    "histories",
    "instances",
    "logit_rows",
    "logits",
    "pad_left",
    "padded",
    "parameter_values",
    "prompts",
    "sequences",
    "vocab_sizes",
]

Plugin = TypeVar("Plugin")
LARGEST = 65_504.0
"""The largest number of float16."""
_SCALES = (1.0, 3.0, 0.01, 30.0, 1e4)
_KINDS = ("listed", "normal", "tied", "equal", "one finite", "largest")
_FAR = 1e3
"""How far values are drawn where a range has no end."""
EXACT = (torch.float32, torch.float64)


_SEEDS = st.integers(0, 999)
_VOCAB_SIZES = st.integers(2, 6) | st.integers(7, 64)


def vocab_sizes() -> st.SearchStrategy[int]:
    """Numbers of tokens from 2 to 64, half of them small."""
    return _VOCAB_SIZES


@st.composite
def logits(
    draw: st.DrawFn,
    vocab_size: int,
    rows: int,
    *,
    dtypes: Sequence[torch.dtype] = EXACT,
    distinct: bool = False,
) -> Tensor:
    """Logits [rows, vocab_size], each row of its own kind (see `logit_rows`), in one of the dtypes."""
    made = [draw(logit_rows(vocab_size, distinct=distinct)) for _ in range(rows)]
    return torch.stack(made).to(draw(st.sampled_from(list(dtypes))))


@functools.cache
@st.composite
def logit_rows(draw: st.DrawFn, vocab_size: int, *, distinct: bool = False) -> Tensor:
    """One row of logits, float64 [vocab_size], with at least one finite logit.

    Kinds: small integers, normal numbers at scales from 0.01 to 1e4, exact ties (rounded to
    bfloat16), all equal, one finite, ±65,504; up to V - 1 logits of a row are -inf.

    Args:
        draw: given by Hypothesis.
        vocab_size: V, at least 2.
        distinct: without ties, so that the order of the tokens is unique.
    """
    kind = "normal" if distinct else draw(st.sampled_from(_KINDS))
    if kind == "listed" and vocab_size <= 6:
        return _with_holes(draw, torch.tensor(draw(_listed(vocab_size)), dtype=torch.float64))
    scale = draw(st.sampled_from(_SCALES))
    random = torch.Generator().manual_seed(draw(_SEEDS))
    row = (torch.randn(vocab_size, generator=random, dtype=torch.float64) * scale).clamp(-LARGEST, LARGEST)
    if kind == "tied":
        row = row.bfloat16().double()
    elif kind == "equal":
        row = row[:1].repeat(vocab_size)
    elif kind == "one finite":
        row[torch.randperm(vocab_size, generator=random)[1:]] = -torch.inf
    elif kind == "largest":
        row[:2] = torch.tensor([LARGEST, -LARGEST])
    return _with_holes(draw, row)


@functools.cache
def _listed(size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(-3, 3), min_size=size, max_size=size)


def _with_holes(draw: st.DrawFn, row: Tensor) -> Tensor:
    """The row with -inf in some places, though never in all of them."""
    if not draw(st.booleans()):
        return row
    random = torch.Generator().manual_seed(draw(_SEEDS))
    order = torch.randperm(len(row), generator=random)
    order = order[torch.isfinite(row[order]).argsort(stable=True)]  # the last place stays, and it is finite
    row[order[: draw(st.integers(1, len(row) - 1))]] = -torch.inf
    return row


@functools.cache
def prompts(vocab_size: int, *, longest: int = 8) -> st.SearchStrategy[list[list[int]]]:
    """Ragged batches: lists of 1 to 4 prompts of 1 to ``longest`` token ids."""
    return st.lists(_tokens(vocab_size, 1, longest), min_size=1, max_size=4)


@functools.cache
def sequences(vocab_size: int, *, beyond: int = 0) -> st.SearchStrategy[tuple[list[int], list[int]]]:
    """A prompt and what was generated after it.

    The prompt may hold ids up to ``vocab_size + beyond - 1``, as with embeddings larger than the head.
    """
    return st.tuples(_tokens(vocab_size + beyond, 1, 8), _tokens(vocab_size, 0, 5))


@functools.cache
def _tokens(vocab_size: int, shortest: int, longest: int) -> st.SearchStrategy[list[int]]:
    """Token ids, each from a byte: one thing to draw and to shrink instead of two for each token."""
    drawn = st.binary(min_size=shortest, max_size=longest)
    return drawn.map(lambda numbers: [number % vocab_size for number in numbers])


@st.composite
def histories(draw: st.DrawFn, vocab_size: int, rows: int, *, beyond: int = 0) -> History:
    """Histories of ``rows`` `sequences`, padded on the left as in `padded`."""
    drawn = [draw(sequences(vocab_size, beyond=beyond)) for _ in range(rows)]
    return draw(padded(vocab_size, drawn))


@st.composite
def padded(draw: st.DrawFn, vocab_size: int, rows: Sequence[tuple[list[int], list[int]]]) -> History:
    """The history of these sequences, with up to three needless columns and a real id as padding."""
    history = History.of([prompt for prompt, _ in rows], [generated for _, generated in rows])
    return pad_left(history, draw(st.integers(0, 3)), draw(st.integers(0, vocab_size - 1)))


def pad_left(history: History, columns: int, pad: int) -> History:
    """The same rows with more columns on the left, and ``pad`` in all that are not tokens."""
    tokens = history.tokens.masked_fill(~history.mask, pad)
    more = torch.full((len(history), columns), pad)
    return History(torch.cat([more, tokens], dim=1), history.pads + columns, history.prompt_lengths)


@functools.cache
def contexts(vocab_size: int) -> st.SearchStrategy[CallContext]:
    """What a call knows: the vocabulary, up to two EOS ids, and perhaps the most tokens of a row."""
    ids = st.lists(st.integers(0, vocab_size - 1), max_size=2, unique=True)
    return ids.map(
        lambda chosen: CallContext(
            vocab_size=vocab_size,
            eos_token_ids=tuple(chosen),
            max_new_tokens=(vocab_size + len(chosen)) % 7 or None,  # not drawn: examples shrink better
        )
    )


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

"""The one source of probability (law 1): from (history, raw logits) to scores, for every use."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial

import attrs
import torch
from torch import Tensor

from decodekit.chain import Chain, wide
from decodekit.errors import PluginError
from decodekit.finite import check_raw, check_scores
from decodekit.glimpse import glimpse
from decodekit.head import Head
from decodekit.history import History
from decodekit.row import Row, row_index, row_numbers
from decodekit.scores import Memory, Part, Scores, Unread
from decodekit.small import small

__all__ = ["Distribution", "Drafts", "process", "unprocessed"]

_WIDTHS = (1, 1_024, 16_384)
"""How many of the largest logits are looked at: more for the rows for which fewer were not enough."""

Drafts = Sequence[Sequence[int]]


def _columns(scores: Tensor | Sequence[Scores]) -> Sequence[Scores]:
    if not isinstance(scores, Tensor):
        return scores
    return [Scores.of(column) for column in (scores.unbind(1) if scores.dim() == 3 else [scores])]


@attrs.frozen(eq=False, slots=False)
class Distribution:
    """What the next token of each row may be, after the row's chain of processors.

    Without drafts the shape is [B, V]. With drafts it is [B, K + 1, V]: column ``j`` follows the first
    ``j`` tokens of the row's draft; or [B, V] for what follows the whole draft.

    Attributes:
        logits: what the chain was given.
        columns: the processed logits of each column; made of a tensor in the shape of ``logits`` as well.
        memories: for each row and column what each stateful processor kept.
        states: of [B, V], the states of each row's stateful processors there.
        offsets: of [B, V], how many hypothetical tokens stand before; none when empty.
    """

    logits: Tensor
    columns: Sequence[Scores] = attrs.field(converter=_columns)
    memories: Sequence[Sequence[Sequence[Memory]]] = ()
    states: Sequence[tuple[object, ...]] = ()
    offsets: Sequence[int] = ()

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.columns)

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.columns[0].vocab_size

    @cached_property
    def scores(self) -> Tensor:
        """The processed logits, in float32 or better; -inf is a token of probability 0.

        Where a chain has cut the rows, all that was cut is filled in here, which costs more than `argmax`,
        `logprobs_of` or a draw.
        """
        dense = [column.dense for column in self.columns]
        return dense[0] if self.logits.dim() == 2 else torch.stack(dense, dim=1)

    @cached_property
    def logprobs(self) -> Tensor:
        """Normalised log-probabilities, of the shape of ``scores``."""
        return self.scores.log_softmax(-1)

    @property
    def probs(self) -> Tensor:
        """Probabilities, of the shape of ``scores``."""
        return self.logprobs.exp()

    def argmax(self) -> Tensor:
        """The most probable token, int64 [B] or [B, K + 1]; ties go to the lowest index."""
        tokens = [column.argmax() for column in self.columns]
        return tokens[0] if self.logits.dim() == 2 else torch.stack(tokens, dim=1)

    def select(self, rows: Sequence[int] | Tensor) -> "Distribution":
        """The given rows, in that order, as numbers or as bools; one may be named more than once."""
        return _Selected(self, row_numbers(rows, len(self.logits)))

    @staticmethod
    def stack(columns: "Sequence[Distribution]") -> "Distribution":
        """Distributions [B, V] after 0, 1, … tokens of the drafts as one [B, n, V]; of one column, itself."""
        if len(columns) == 1:
            return columns[0]
        rows = range(len(columns[0].logits))
        kept = bool(columns[0].memories)
        return Distribution(
            torch.stack([column.logits for column in columns], dim=1),
            [scores for column in columns for scores in column.columns],
            [[column.memories[row][0] for column in columns] for row in rows] if kept else (),
        )

    def check(self, width: int) -> None:
        """Raise what the first columns have to say of their logits, where nobody has looked at them.

        Raises:
            NonFiniteLogitsError, EmptySupportError: as `process` does.
        """
        for column in self.columns[:width]:
            column.check()

    def column(self, row: int, column: int) -> tuple[Tensor, Tensor]:
        """Logits and scores [V] of one row after ``column`` tokens of its draft."""
        logits = self.logits[row] if self.logits.dim() == 2 else self.logits[row, column]
        return logits, self.columns[column].row(row)

    def logprobs_of(self, blocks: Drafts) -> list[list[float]]:
        """The log-probability of each token of each row's block, token ``j`` under column ``j``."""
        values: list[list[float]] = [[] for _ in blocks]
        for place in range(max(map(len, blocks), default=0)):
            rows = [row for row, block in enumerate(blocks) if len(block) > place]
            tokens = [blocks[row][place] for row in rows]
            for row, value in zip(rows, self.columns[place].logprobs(rows, tokens), strict=True):
                values[row].append(value)
        return values


class _Selected(Distribution):
    """Rows of a distribution, copied when somebody looks at them."""

    def __init__(self, whole: Distribution, rows: list[int]) -> None:
        self.__dict__.update(_whole=whole, _rows=rows)
        for name in ("memories", "states", "offsets"):
            values = getattr(whole, name)
            self.__dict__[name] = [values[row] for row in rows] if values else ()

    _whole: Distribution
    _rows: list[int]

    @cached_property
    def logits(self) -> Tensor:  # computed at the first look
        """What the chain was given."""
        return self._whole.logits[self._rows]

    @cached_property
    def columns(self) -> Sequence[Scores]:  # the same
        """The processed logits of each column."""
        return [column.select(self._rows) for column in self._whole.columns]

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self._whole.width

    @property
    def vocab_size(self) -> int:
        """V."""
        return self._whole.vocab_size

    def check(self, width: int) -> None:
        """Ask the whole, which need not be copied for it."""
        self._whole.check(width)


def unprocessed(
    rows: Sequence[Row], logits: Tensor, drafts: Drafts | None = None, *, late: bool = False
) -> Distribution:
    """What `process` gives with empty chains for logits [B, V], or [B, K + 1, V] with drafts.

    Args:
        rows: the B rows.
        logits: the model's.
        drafts: hypothetical next tokens of each row; logits [B, V] follow them.
        late: of [B, V], look for what is wrong with them only when `Distribution.check` asks.

    Raises:
        NonFiniteLogitsError: a row's logits hold NaN or +inf, or nothing but -inf.
    """
    after = [len(draft) for draft in drafts or ()] if logits.dim() == 2 else ()
    if late and logits.dim() == 2:
        check = partial(check_raw, (), rows, logits)
        unread = Unread(Scores.of(wide(logits)).parts, logits.shape[-1], check)
        return Distribution(logits, [unread], offsets=after)
    check_raw((), rows, logits)
    return Distribution(logits, wide(logits), offsets=after)


def process(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    history: Callable[[], History],
    logits: Tensor,
    drafts: Drafts | None = None,
    after: Distribution | None = None,
) -> Distribution:
    """Apply each row's chain to its logits.

    Args:
        chains: the chains of the call; a row names its own by ``row.chain``.
        rows: the B rows.
        history: gives their committed tokens, where somebody must look at them.
        logits: [B, V], or [B, K + 1, V] with drafts.
        drafts: hypothetical next tokens of each row, of which the longest has K.
        after: with [B, V] and drafts, the distribution before each row's last drafted token.

    Raises:
        PluginError: stateful processors need ``after``.
        NonFiniteLogitsError: a row's logits hold NaN or +inf, or nothing but -inf, and its chain does not
            clean them.
        EmptySupportError: the chain left a row without any token.
    """
    if logits.dim() == 2:
        return _process_end(chains, rows, history, logits, drafts or (), after)
    drafts = drafts or [()] * len(rows)
    columns: list[Scores] = []
    memories_of: list[list[list[Memory]]] = [[] for _ in rows]
    states = [row.states for row in rows]
    for column in range(logits.shape[1]):
        if column:
            states = _advance(chains, rows, states, memories_of, drafts, column)
        hypothetical = _after(history, [draft[:column] for draft in drafts])
        scores, memories = _process_column(chains, rows, hypothetical, logits[:, column], states)
        columns.append(scores)
        for past, memory in zip(memories_of, memories, strict=True):
            past.append(memory)
    return Distribution(logits, columns, memories_of if any(map(any, memories_of)) else ())


def _process_end(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    history: Callable[[], History],
    logits: Tensor,
    drafts: Drafts,
    after: Distribution | None,
) -> Distribution:
    """The distribution [B, V] after the whole drafts."""
    states = [row.states for row in rows]
    if after is not None and any(states):
        before = after.offsets or [0] * len(rows)
        states = [
            chains[row.chain].advance(state, draft[-1], memory[0]) if len(draft) > length else state
            for row, state, memory, draft, length in zip(
                rows, after.states, after.memories, drafts, before, strict=True
            )
        ]
    elif any(states) and any(drafts):
        message = (
            "the chain keeps a state: give dist the distribution before the last drafted token as after="
        )
        raise PluginError(message)
    scores, memories = _process_column(chains, rows, _after(history, drafts), logits, states)
    kept = [[memory] for memory in memories] if any(memories) else ()
    return Distribution(logits, [scores], kept, states, [len(draft) for draft in drafts])


def _after(history: Callable[[], History], drafts: Drafts) -> Callable[[], History]:
    """The history after hypothetical tokens as well."""
    return (lambda: history().append(drafts)) if any(drafts) else history


def _process_column(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    history: Callable[[], History],
    logits: Tensor,
    states: list[tuple[object, ...]],
) -> tuple[Scores, list[list[Memory]]]:
    """Process logits [B, V], the short way if there is one."""
    if not any(states):
        short: Scores | None = small(
            chains, rows, history, logits, lambda: _carefully(chains, rows, history, logits, states)[0]
        )
        if short is None:
            short = _shortly(chains, rows, history, logits)
        if short is not None:
            return short, [[] for _ in rows]
    return _carefully(chains, rows, history, logits, states)


def _shortly(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    history: Callable[[], History],
    logits: Tensor,
    widths: Sequence[int] = _WIDTHS,
) -> Scores | None:
    """The short way, if there is one; rows of which it is not sure look at more, and then at all."""

    def careful(unsure: list[int]) -> Scores:
        own_rows, own_logits = [rows[row] for row in unsure], logits[row_index(unsure, logits.device)]

        def own_history() -> History:
            return history().select(unsure)

        if len(widths) > 1:
            wider = _shortly(chains, own_rows, own_history, own_logits, widths[1:])
            if wider is not None:
                return wider
        return _carefully(chains, own_rows, own_history, own_logits, [()] * len(unsure))[0]

    numbers = [row.chain for row in rows]
    late = [row for row, number in enumerate(numbers) if chains[number].opening]
    if late:  # what stands before the opening may hide what is wrong with the logits
        check_raw(chains, [rows[row] for row in late], logits[row_index(late, logits.device)])
    return glimpse(chains, numbers, logits, history, careful, widths[0])


def _carefully(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    history: Callable[[], History],
    logits: Tensor,
    states: list[tuple[object, ...]],
) -> tuple[Scores, list[list[Memory]]]:
    """Process logits [B, V] with checks; rows of one chain go through it together."""
    check_raw(chains, rows, logits)
    numbers = {row.chain for row in rows}
    if len(numbers) == 1:
        scores, memories = chains[numbers.pop()].run(logits, history(), states)
    else:
        scores, memories = _in_groups(chains, rows, history(), logits, states)
    if scores.parts[0].logits is not logits:  # an empty chain changes nothing
        check_scores(chains, rows, scores)
    return scores, memories


def _in_groups(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    history: History,
    logits: Tensor,
    states: list[tuple[object, ...]],
) -> tuple[Scores, list[list[Memory]]]:
    groups: dict[int, list[int]] = {}
    for position, row in enumerate(rows):
        groups.setdefault(row.chain, []).append(position)
    parts: list[Part] = []
    memories: list[list[Memory]] = [[] for _ in rows]
    heads = _heads(chains, groups, logits)
    for number, members in groups.items():
        own = heads[number] if number in heads else logits[row_index(members, logits.device)]
        scores, kept = chains[number].run(
            own, history.select(members), [states[member] for member in members]
        )
        parts += scores.renamed(members)
        for member, memory in zip(members, kept, strict=True):
            memories[member] = memory
    return Scores.joined(parts, logits.shape[-1]), memories


def _heads(chains: Sequence[Chain], groups: dict[int, list[int]], logits: Tensor) -> dict[int, Head]:
    """For each chain that begins with the largest logits those of its rows, found for all rows at once."""
    begin = {number: members for number, members in groups.items() if chains[number].reach}
    if not begin:
        return {}
    places = [member for members in begin.values() for member in members]
    own = logits[row_index(places, logits.device)]
    head = Head.of(wide(own), max(chains[number].reach for number in begin))
    found, start = {}, 0
    for number, members in begin.items():
        found[number] = head.select(slice(start, start + len(members)))
        start += len(members)
    return found


def _advance(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    states: list[tuple[object, ...]],
    memories: Sequence[Sequence[Sequence[Memory]]],
    drafts: Drafts,
    column: int,
) -> list[tuple[object, ...]]:
    """The states after one more token of the drafts; a shorter draft stays where it is."""
    return [
        chains[row.chain].advance(state, draft[column - 1], past[-1])
        if column <= len(draft) and state
        else state
        for row, state, past, draft in zip(rows, states, memories, drafts, strict=True)
    ]

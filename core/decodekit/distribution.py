"""The one source of probability (law 1): from (history, raw logits) to scores, for every use."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor

from decodekit.chain import Chain
from decodekit.errors import EmptySupportError, NonFiniteLogitsError, PluginError
from decodekit.history import History
from decodekit.row import Row

__all__ = ["Distribution", "Drafts", "process"]

Drafts = Sequence[Sequence[int]]


@attrs.frozen(eq=False, slots=False)
class Distribution:
    """What the next token of each row may be, after the row's chain of processors.

    Without drafts the shape is [B, V]. With drafts it is [B, K + 1, V]: column ``j`` follows the first
    ``j`` tokens of the row's draft; or [B, V] for what follows the whole draft.

    Attributes:
        logits: what the chain was given.
        scores: the processed logits, float32 or better; -inf is a token of probability 0.
        memories: for each row and column what each stateful processor returned, float [V].
        states: of [B, V], the states of each row's stateful processors there.
        offsets: of [B, V], how many hypothetical tokens stand before; none when empty.
    """

    logits: Tensor
    scores: Tensor
    memories: Sequence[Sequence[tuple[Tensor, ...]]] = ()
    states: Sequence[tuple[object, ...]] = ()
    offsets: Sequence[int] = ()

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
        return self.scores.argmax(-1)

    def select(self, rows: Sequence[int] | Tensor) -> "Distribution":
        """The given rows, in that order; a row may be named more than once."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.scores.device)
        chosen = index.tolist()
        return Distribution(
            self.logits[index],
            self.scores[index],
            [self.memories[row] for row in chosen] if self.memories else (),
            [self.states[row] for row in chosen] if self.states else (),
            [self.offsets[row] for row in chosen] if self.offsets else (),
        )

    @staticmethod
    def stack(columns: "Sequence[Distribution]") -> "Distribution":
        """Distributions [B, V] after 0, 1, … tokens of the drafts as one [B, n, V]; of one column, itself."""
        if len(columns) == 1:
            return columns[0]
        rows = range(len(columns[0].scores))
        kept = bool(columns[0].memories)
        return Distribution(
            torch.stack([column.logits for column in columns], dim=1),
            torch.stack([column.scores for column in columns], dim=1),
            [[column.memories[row][0] for column in columns] for row in rows] if kept else (),
        )

    def column(self, row: int, column: int) -> tuple[Tensor, Tensor]:
        """Logits and scores [V] of one row after ``column`` tokens of its draft."""
        if self.scores.dim() == 2:
            return self.logits[row], self.scores[row]
        return self.logits[row, column], self.scores[row, column]

    def logprobs_of(self, blocks: Drafts) -> list[list[float]]:
        """The log-probability of each token of each row's block, token ``j`` under column ``j``."""
        scores = self.scores if self.scores.dim() == 3 else self.scores[:, None]
        named = [
            (row, column, token) for row, block in enumerate(blocks) for column, token in enumerate(block)
        ]
        rows, columns, tokens = (
            torch.tensor(named, dtype=torch.long, device=scores.device).view(-1, 3).unbind(1)
        )
        picked = scores[rows, columns]
        values = iter((picked.gather(1, tokens[:, None])[:, 0] - picked.logsumexp(-1)).tolist())
        return [[next(values) for _ in block] for block in blocks]


def process(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    history: History,
    logits: Tensor,
    drafts: Drafts | None = None,
    after: Distribution | None = None,
) -> Distribution:
    """Apply each row's chain to its logits.

    Args:
        chains: the chains of the call; a row names its own by ``row.chain``.
        rows: the B rows.
        history: their committed tokens.
        logits: [B, V], or [B, K + 1, V] with drafts.
        drafts: hypothetical next tokens of each row, of which the longest has K.
        after: with [B, V] and drafts, the distribution before each row's last drafted token.

    Raises:
        PluginError: stateful processors need ``after``.
        NonFiniteLogitsError: a row's logits hold NaN or +inf, or nothing but -inf, and its chain does not
            clean them.
        EmptySupportError: the chain left a row without any token.
    """
    _check_raw(chains, rows, logits)
    if logits.dim() == 2:
        return _process_end(chains, rows, history, logits, drafts or (), after)
    drafts = drafts or [()] * len(rows)
    columns, memories_of = [], [[] for _ in rows]  # type: list[Tensor], list[list[tuple[Tensor, ...]]]
    states = [row.states for row in rows]
    for column, hypothetical in enumerate(_hypotheses(history, drafts)):
        if column:
            states = _advance(chains, rows, states, memories_of, drafts, column)
        scores, memories = _process_column(chains, rows, hypothetical, logits[:, column], states)
        _check_scores(chains, rows, scores)
        columns.append(scores)
        for past, memory in zip(memories_of, memories, strict=True):
            past.append(memory)
    return Distribution(
        logits, torch.stack(columns, dim=1), memories_of if any(map(any, memories_of)) else ()
    )


def _process_end(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    history: History,
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
    hypothetical = history.append(drafts) if any(drafts) else history
    scores, memories = _process_column(chains, rows, hypothetical, logits, states)
    _check_scores(chains, rows, scores)
    kept = [[memory] for memory in memories] if any(memories) else ()
    return Distribution(logits, scores, kept, states, [len(draft) for draft in drafts])


def _hypotheses(history: History, drafts: Drafts) -> Iterator[History]:
    """The history after 0, 1, … K tokens of the drafts; a shorter draft stays as it is."""
    yield history
    for count in range(1, max(map(len, drafts), default=0) + 1):
        yield history.append([draft[:count] for draft in drafts])


def _process_column(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    history: History,
    logits: Tensor,
    states: list[tuple[object, ...]],
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """Process logits [B, V]; rows of one chain go through it together."""
    groups: dict[int, list[int]] = {}
    for position, row in enumerate(rows):
        groups.setdefault(row.chain, []).append(position)
    if len(groups) == 1:
        (number,) = groups
        scores, outputs = chains[number].apply(logits, history, states)
        return scores, [tuple(output[row] for output in outputs) for row in range(len(rows))]
    merged = logits.new_empty(logits.shape, dtype=torch.promote_types(logits.dtype, torch.float32))
    memories: list[tuple[Tensor, ...]] = [()] * len(rows)
    for number, members in groups.items():
        index = torch.tensor(members, device=logits.device)
        scores, outputs = chains[number].apply(
            logits[index], history.select(index), [states[i] for i in members]
        )
        merged[index] = scores
        for position, member in enumerate(members):
            memories[member] = tuple(output[position] for output in outputs)
    return merged, memories


def _advance(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    states: list[tuple[object, ...]],
    memories: Sequence[Sequence[tuple[Tensor, ...]]],
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


def _check_raw(chains: Sequence[Chain], rows: Sequence[Row], logits: Tensor) -> None:
    finite = logits.amax(-1).isfinite().view(len(rows), -1).all(-1)
    if bool(finite.all()):
        return
    damaged = [row for row, fine in zip(rows, finite.tolist(), strict=True) if not fine]
    refused = [row for row in damaged if not chains[row.chain].cleans]
    if not refused:
        return
    message = (
        f"the model's logits of {_place(refused[0])} hold NaN or +inf, or allow no token at all; "
        "load the model in a wider dtype (dtype='float32'), or look for damaged weights"
    )
    raise NonFiniteLogitsError(message)


def _check_scores(chains: Sequence[Chain], rows: Sequence[Row], scores: Tensor) -> None:
    peak = scores.amax(-1)
    if bool(peak.isfinite().all()):
        return
    position = int((~peak.isfinite()).nonzero()[0])
    row, chain = rows[position], chains[rows[position].chain]
    if float(peak[position]) == -torch.inf:
        message = f"the chain {chain} leaves no token for {_place(row)}; loosen one of its processors"
        raise EmptySupportError(message)
    message = (
        f"the chain {chain} gave NaN or +inf for {_place(row)}; "
        "decodekit.testing.check_processor says which of its processors does"
    )
    raise NonFiniteLogitsError(message)


def _place(row: Row) -> str:
    return f"row {row.slot} (prompt {row.prompt}) at step {len(row.tokens)}"

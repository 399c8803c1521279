"""One sequence of a call: all that belongs to it and moves with it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from decodekit.errors import PluginError

if TYPE_CHECKING:
    from decodekit.caches import RowCache
    from decodekit.traces import Trace

__all__ = ["NEGATIVE", "TARGET", "Lanes", "Row", "give_free_slots", "row_index", "row_numbers"]

TARGET = "target"
NEGATIVE = "negative"
"""Names of the sessions that the core opens itself."""


@attrs.define(eq=False, kw_only=True)
class Row:
    """A sequence that is being decoded.

    Attributes:
        prompt: index of its prompt in the call.
        lane: which of its prompt's rows it is; names its random stream together with ``seed``.
        slot: its place in the batch as the call started.
        seed: its seed; without meaning when the call has none.
        chain: which of the call's chains processes it.
        greedy: whether its draws are the most probable token (a row at temperature 0).
        prompt_tokens: its prompt, without padding.
        contexts: by session name what is fed there as its prompt, where that is not ``prompt_tokens``.
        tokens: what was generated and committed.
        logprobs: log-probability of each of ``tokens`` under the processed distribution, when kept.
        rank: its place among the rows that its prompt returns; ties go by lane.
        score: what a search ranks it by.
        parents: for each of ``tokens`` the slot that the row had before, when a search notes it.
        states: one state for each stateful processor of its chain.
        memo: the strategy's own values; copied (shallowly) when the row forks.
        finish_reason: why it ended; None while it lives.
        scores, logits: processed and raw logits [V] of each of ``tokens``, when kept.
        traces: attentions and hidden states of each of ``tokens``, when kept.
        prompt_trace: those of the prompt, which belong to the first token.
        cache: what the target's cache held of it as it left, when kept.
        steps: in how many steps it got its tokens.
        drafted, accepted: counters that a speculating strategy keeps.
    """

    prompt: int
    lane: int = 0
    slot: int = 0
    seed: int = 0
    chain: int = 0
    greedy: bool = False
    prompt_tokens: list[int] = attrs.field(factory=list)
    contexts: dict[str, list[int]] = attrs.field(factory=dict)
    tokens: list[int] = attrs.field(factory=list)
    logprobs: list[float] = attrs.field(factory=list)
    rank: int = 0
    score: float = 0.0
    parents: list[int] = attrs.field(factory=list)
    states: tuple[Any, ...] = ()
    memo: dict[str, Any] = attrs.field(factory=dict)
    finish_reason: str | None = None
    scores: list[Tensor] = attrs.field(factory=list)
    logits: list[Tensor] = attrs.field(factory=list)
    traces: list["Trace"] = attrs.field(factory=list)
    prompt_trace: "Trace | None" = None
    cache: "RowCache | None" = None
    steps: int = 0
    drafted: int = 0
    accepted: int = 0

    def fork(self) -> "Row":
        """A row with the same past, to be continued on its own."""
        twin = Row.__new__(Row)
        for name in _NAMES:  # `copy.copy` takes ten times as long
            setattr(twin, name, getattr(self, name))
        twin.memo = {**self.memo}
        for name in _GROWING:
            setattr(twin, name, [*getattr(self, name)])
        return twin

    def blank(self, reason: str) -> "Row":
        """A row of the same prompt that has generated nothing, and why."""
        return Row(
            prompt=self.prompt,
            slot=self.slot,
            prompt_tokens=self.prompt_tokens,
            score=-math.inf,
            finish_reason=reason,
        )

    def since(self, start: int, session: str | None = None) -> list[int]:
        """The committed tokens from position ``start`` on, prompt included, as ``session`` is fed them."""
        prompt = self.context(session) if session is not None else self.prompt_tokens
        if start >= len(prompt):
            return self.tokens[start - len(prompt) :]
        return prompt[start:] + self.tokens

    def context(self, session: str) -> list[int]:
        """What is fed to a session as the prompt."""
        return self.contexts.get(session, self.prompt_tokens)

    @property
    def length(self) -> int:
        """Committed tokens, prompt included."""
        return len(self.prompt_tokens) + len(self.tokens)


_NAMES = tuple(field.name for field in attrs.fields(Row))
_GROWING = ("tokens", "logprobs", "parents", "scores", "logits", "traces")


def row_numbers(rows: Sequence[int] | Tensor, count: int) -> list[int]:
    """Which of ``count`` rows are named, in their order: by their numbers, or by a bool for each.

    Raises:
        PluginError: a number is none of a row, or there is not one bool for each.
    """
    named = rows.tolist() if hasattr(rows, "tolist") else [*rows]
    if named and all(type(item) is bool for item in named) and len(named) == count:
        return [row for row, kept in enumerate(named) if kept]
    if not all(type(item) is int and 0 <= item < count for item in named):
        message = (
            f"select got {named} for {count} rows: it takes their numbers, 0 to {count - 1}, or one bool "
            "for each"
        )
        raise PluginError(message)
    return named


def row_index(rows: Sequence[int], device: torch.device) -> Tensor | slice:
    """An index of the rows; a slice where they stand side by side, which copies nothing."""
    if rows and list(rows) == [*range(rows[0], rows[0] + len(rows))]:
        return slice(rows[0], rows[0] + len(rows))
    return torch.tensor(rows, dtype=torch.long, device=device)


class Lanes(dict[int, int]):
    """For each prompt the lane of the next row that forks from one of its rows."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Lanes":
        """Those behind the rows, one of each prompt."""
        return cls({row.prompt: row.lane + 1 for row in rows})

    def fork(self, row: Row) -> Row:
        """A copy of the row in the next lane, without a slot."""
        twin = row.fork()
        twin.lane, twin.slot = self[row.prompt], -1
        self[row.prompt] += 1
        return twin


def give_free_slots(rows: list[Row]) -> None:
    """Forks take the lowest places that no other row holds."""
    held = {row.slot for row in rows}
    free = (slot for slot in range(2 * len(rows)) if slot not in held)
    for row in rows:
        if row.slot < 0:
            row.slot = next(free)

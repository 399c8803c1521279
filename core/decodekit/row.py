"""One sequence of a call: all that belongs to it and moves with it."""

import math
from typing import Any

import attrs
from torch import Tensor

__all__ = ["Row"]


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
        tokens: what was generated and committed.
        logprobs: log-probability of each of ``tokens`` under the processed distribution, when kept.
        rank: its place among the rows that its prompt returns; ties go by lane.
        score: what a search ranks it by.
        parents: for each of ``tokens`` the slot that the row had before, when a search notes it.
        states: one state for each stateful processor of its chain.
        memo: the strategy's own values; copied (shallowly) when the row forks.
        finish_reason: why it ended; None while it lives.
        scores, logits: processed and raw logits [V] of each of ``tokens``, when kept.
        drafted, accepted: counters that a speculating strategy keeps.
    """

    prompt: int
    lane: int = 0
    slot: int = 0
    seed: int = 0
    chain: int = 0
    greedy: bool = False
    prompt_tokens: list[int] = attrs.field(factory=list)
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
    drafted: int = 0
    accepted: int = 0

    def fork(self) -> "Row":
        """A row with the same past, to be continued on its own."""
        return attrs.evolve(
            self,
            tokens=[*self.tokens],
            logprobs=[*self.logprobs],
            parents=[*self.parents],
            memo={**self.memo},
            scores=[*self.scores],
            logits=[*self.logits],
        )

    def blank(self, reason: str) -> "Row":
        """A row of the same prompt that has generated nothing, and why."""
        return Row(
            prompt=self.prompt,
            slot=self.slot,
            prompt_tokens=self.prompt_tokens,
            score=-math.inf,
            finish_reason=reason,
        )

    def since(self, start: int) -> list[int]:
        """The committed tokens from position ``start`` on, prompt included."""
        if start >= len(self.prompt_tokens):
            return self.tokens[start - len(self.prompt_tokens) :]
        return self.prompt_tokens[start:] + self.tokens

    @property
    def length(self) -> int:
        """Committed tokens, prompt included."""
        return len(self.prompt_tokens) + len(self.tokens)

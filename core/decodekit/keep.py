"""What a call keeps of every committed token, for its result."""

from collections.abc import Sequence

import attrs
from torch import Tensor

from decodekit.distribution import Distribution
from decodekit.forward import Forward
from decodekit.row import Row
from decodekit.traces import Trace

__all__ = ["Keep", "Recorder", "Step"]


@attrs.frozen(kw_only=True)
class Keep:
    """What is kept of every committed token, for the result of the call.

    With ``by_slot`` scores, logits, attentions and hidden states are kept by `Batch.record` and not for
    each row. ``cache`` is what the target's cache holds of rows that leave.
    """

    logprobs: bool = False
    scores: bool = False
    logits: bool = False
    attentions: bool = False
    hidden_states: bool = False
    cache: bool = False
    by_slot: bool = False

    @property
    def traces(self) -> bool:
        """Whether something is kept of what the layers say."""
        return self.attentions or self.hidden_states


@attrs.frozen(eq=False)
class Step:
    """What `Batch.record` kept of a step: scores and logits [slots, V], and a trace for each slot."""

    scores: Tensor | None
    logits: Tensor | None
    traces: Sequence[Trace | None]


class Recorder:
    """Keeps what `Keep` asks for, in the rows or by step.

    Attributes:
        keep: what is asked for.
        steps: what `record_step` kept.
        seen: the target's last output, for traces.
    """

    def __init__(self, keep: Keep, slots: int) -> None:
        """Keep nothing yet; ``slots`` is the number of rows as the call begins."""
        self.keep = keep
        self.steps: list[Step] = []
        self.seen: Forward | None = None
        self._slots = slots

    def see(self, output: Forward) -> None:
        """Remember the target's output until tokens are committed that follow from it."""
        if self.keep.traces:
            self.seen = output

    def record_tokens(self, rows: Sequence[Row], blocks: Sequence[list[int]], dist: Distribution) -> None:
        """Keep what belongs to each new token, before it is added to its row."""
        keep = self.keep
        if keep.logprobs:
            for row, values in zip(rows, dist.logprobs_of(blocks), strict=True):
                row.logprobs += values
        if keep.by_slot or not (keep.logits or keep.scores or keep.traces):
            return
        for position, (row, block) in enumerate(zip(rows, blocks, strict=True)):
            for column in range(len(block)):
                if keep.logits or keep.scores:
                    logits, scores = dist.column(position, column)
                    row.logits += [logits] if keep.logits else []
                    row.scores += [scores] if keep.scores else []
                if keep.traces:
                    row.traces.append(self._trace(row, position, column))

    def record_step(self, rows: Sequence[Row], dist: Distribution, logits: Tensor) -> None:
        """Keep a step's scores and raw logits [B, V], and its traces, by slot."""
        traces: list[Trace | None] = [None] * self._slots
        if self.keep.traces:
            for position, row in enumerate(rows):
                traces[row.slot] = self._trace(row, position, 0)
        slots = [row.slot for row in rows]
        self.steps.append(
            Step(
                self._by_slot(dist.scores, slots) if self.keep.scores else None,
                self._by_slot(logits, slots) if self.keep.logits else None,
                traces,
            )
        )

    def _by_slot(self, values: Tensor, slots: list[int]) -> Tensor:
        whole = values.new_full((self._slots, values.shape[-1]), -float("inf"))
        whole[slots] = values
        return whole

    def _trace(self, row: Row, position: int, column: int) -> Trace:
        """What the layers said before a token of this step."""
        if not row.tokens and not column and row.prompt_trace is not None:
            return row.prompt_trace
        assert self.seen is not None  # a distribution comes from a forward pass
        column = min(column, self.seen.logits.shape[1] - 1)
        return Trace.of(self.seen, position, slice(column, column + 1))

"""A chain of processors, in the order in which they are applied."""

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from decodekit.history import History
from decodekit.processor import CallContext, Processor, StatefulProcessor

__all__ = ["Chain"]


def _as_tuple(processors: Iterable[Processor]) -> tuple[Processor, ...]:
    return tuple(processors)


@attrs.frozen
class Chain:
    """Processors in the user's order; as a function, pure like each of them.

    Attributes:
        processors: first applied first.
    """

    processors: tuple[Processor, ...] = attrs.field(default=(), converter=_as_tuple)

    def bind(self, context: CallContext) -> "Chain":
        """The chain for one call: bound to what the call knows, without those that change nothing."""
        bound = [processor.bind(context) for processor in self.processors]
        return Chain([processor for processor in bound if not processor.is_neutral])

    @property
    def stateful(self) -> tuple[StatefulProcessor[Any], ...]:
        """The processors that keep a state for each row."""
        return tuple(item for item in self.processors if isinstance(item, StatefulProcessor))

    @property
    def cleans(self) -> bool:
        """Whether one of the processors takes NaN and infinities out of the logits."""
        return any(processor.CLEANS for processor in self.processors)

    def init(self, prompt: list[int]) -> tuple[Any, ...]:
        """The states of a row before its first generated token."""
        return tuple(processor.init(prompt) for processor in self.stateful)

    def apply(
        self, logits: Tensor, history: History, states: Sequence[tuple[Any, ...]]
    ) -> tuple[Tensor, list[Tensor]]:
        """Process logits [B, V]; ``states`` holds one tuple a row.

        Returns:
            The processed logits, in float32 or better, and the memory of each stateful processor.
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()
        outputs: list[Tensor] = []
        for processor in self.processors:
            if isinstance(processor, StatefulProcessor):
                given = [state[len(outputs)] for state in states]
                processed = processor.process(logits, history, given)
                outputs.append(processor.memory(logits, processed))
                logits = processed
            else:
                logits = processor(logits, history)
        return logits, outputs

    def advance(self, states: tuple[Any, ...], token: int, outputs: Iterable[Tensor]) -> tuple[Any, ...]:
        """The states of one row after ``token``; ``outputs`` holds its row [V] of each stateful output."""
        return tuple(
            processor.advance(state, token, output)
            for processor, state, output in zip(self.stateful, states, outputs, strict=True)
        )

    def forced(self, states: tuple[Any, ...]) -> list[int]:
        """The tokens that must come after the states of one row: the most that a processor knows."""
        known = [list(item.forced(state)) for item, state in zip(self.stateful, states, strict=True)]
        return max(known, key=len, default=[])

    def __str__(self) -> str:
        return " > ".join(processor.describe() for processor in self.processors) or "none"

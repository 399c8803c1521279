"""transformers' own logits processors, as members of a chain."""

from typing import Any, ClassVar

import attrs
from torch import Tensor

from decodekit.history import History
from decodekit.processor import CallContext, Laws, Processor

__all__ = ["WrappedProcessor"]


@attrs.frozen(eq=False)
class WrappedProcessor(Processor):
    """A callable ``(input_ids, scores) -> scores`` of transformers' ``logits_processor`` argument.

    It sees the batch as transformers would show it: every row in its place, those that have ended with
    zeros. What it promises is unknown, so no strategy may rely on a law.
    """

    NAME: ClassVar[str] = "wrapped"
    LAWS: ClassVar[Laws] = Laws(may_empty=True, may_revive=True)
    wrapped: Any
    batch_size: int = 0

    def bind(self, context: CallContext) -> "WrappedProcessor":
        """Learn how many rows there are."""
        return attrs.evolve(self, batch_size=context.batch_size)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Call it with a copy, because many of transformers' processors write into their input."""
        slots = history.slots
        if slots is None or slots.tolist() == list(range(self.batch_size)):
            scores: Tensor = self.wrapped(history.tokens, logits.clone())
            return scores
        input_ids = history.tokens.new_zeros(self.batch_size, history.tokens.shape[1])
        whole = logits.new_zeros(self.batch_size, logits.shape[1])
        input_ids[slots], whole[slots] = history.tokens, logits
        scores = self.wrapped(input_ids, whole)
        return scores[slots]

    @property
    def is_neutral(self) -> bool:
        """Never known."""
        return False

    def describe(self) -> str:
        """The class's name."""
        return type(self.wrapped).__name__

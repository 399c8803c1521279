"""transformers' own logits processors, as members of a chain."""

from typing import Any, ClassVar

import attrs
from torch import Tensor

from decodekit.history import History
from decodekit.processor import Laws, Processor

__all__ = ["WrappedProcessor"]


@attrs.frozen(eq=False)
class WrappedProcessor(Processor):
    """A callable ``(input_ids, scores) -> scores`` of transformers' ``logits_processor`` argument.

    It sees the live rows only (finished rows leave the batch), padded on the left. What it promises is
    unknown, so no strategy may rely on a law.
    """

    NAME: ClassVar[str] = "wrapped"
    LAWS: ClassVar[Laws] = Laws(may_empty=True, may_revive=True)
    wrapped: Any

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Call it with a copy, because many of transformers' processors write into their input."""
        scores: Tensor = self.wrapped(history.tokens, logits.clone())
        return scores

    @property
    def is_neutral(self) -> bool:
        """Never known."""
        return False

    def describe(self) -> str:
        """The class's name."""
        return type(self.wrapped).__name__

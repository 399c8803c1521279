"""What a caller of transformers gives as a function, as members of a chain."""

from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from decodekit.errors import ParameterError
from decodekit.history import History
from decodekit.processor import CallContext, Laws, Processor

__all__ = ["PrefixConstraint", "WrappedProcessor"]


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


@attrs.frozen(eq=False)
class PrefixConstraint(Processor):
    """Keep the tokens that ``allowed(batch_id, input_ids)`` names: ``prefix_allowed_tokens_fn``.

    It is called for every row with the row's number in the batch, the same one for all beams of a prompt,
    and its tokens int64 [T] with the padding. Where all that it names was forbidden before, it is forced
    with a logit of 0.
    """

    NAME: ClassVar[str] = "prefix_allowed_tokens_fn"
    LAWS: ClassVar[Laws] = Laws(may_revive=True)
    allowed: Callable[[int, Tensor], list[int]]
    num_beams: int = 1

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf for all other tokens."""
        slots = range(len(history)) if history.slots is None else history.slots.tolist()
        mask = torch.full_like(logits, float("-inf"))
        for row, slot in enumerate(slots):
            mask[row, self._named(slot // self.num_beams, history.tokens[row])] = 0
        kept = logits + mask
        return torch.where(kept.isneginf().all(dim=-1, keepdim=True), mask, kept)

    def _named(self, batch_id: int, tokens: Tensor) -> list[int]:
        named = self.allowed(batch_id, tokens)
        if len(named) == 0:
            message = (
                f"prefix_allowed_tokens_fn gave no token for batch_id={batch_id} after {len(tokens)} "
                "tokens: it must give at least one, e.g. an EOS id where the constraint is fulfilled"
            )
            raise ParameterError(message)
        return named

    @property
    def is_neutral(self) -> bool:
        """Never known."""
        return False

    def describe(self) -> str:
        """The argument's name."""
        return self.NAME

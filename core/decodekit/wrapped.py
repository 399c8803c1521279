"""What a caller of transformers gives as a function, as members of a chain."""

from collections.abc import Callable, Collection, Iterator
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor
from torch.nn.functional import pad

from decodekit.errors import ParameterError
from decodekit.history import History
from decodekit.processor import CallContext, Laws, Processor

__all__ = ["PrefixConstraint", "WrappedProcessor"]


_UNBOUND = CallContext(vocab_size=0)


def _slots(history: History) -> list[int]:
    slots: list[int] = [*range(len(history))] if history.slots is None else history.slots.tolist()
    return slots


def _as_transformers(history: History, context: CallContext) -> Iterator[tuple[list[int], list[int], Tensor]]:
    """Rows of the same count of new tokens, their slots and their input_ids int64 [b, T].

    Under drafts rows differ in length; each is shown as wide as without drafts, or its padding would tell.
    """
    slots, counts = _slots(history), history.new_lengths.tolist()
    prompts = max(context.prompt_width, int(history.prompt_lengths.max()))
    for count in sorted(set(counts)):
        rows = [row for row, own in enumerate(counts) if own == count]
        missing = prompts + count - history.tokens.shape[1]  # below 0: crop
        tokens = pad(history.tokens[rows], (missing, 0), value=context.pad_token_id)
        yield rows, [slots[row] for row in rows], tokens


@attrs.frozen(eq=False)
class WrappedProcessor(Processor):
    """A callable ``(input_ids, scores) -> scores`` of transformers' ``logits_processor`` argument.

    It sees the batch as transformers would show it: every row in its place, those that have ended with
    zeros. What it promises is unknown, so no strategy may rely on a law.
    """

    NAME: ClassVar[str] = "wrapped"
    REPEATABLE: ClassVar[bool] = False
    LAWS: ClassVar[Laws] = Laws(may_empty=True, may_revive=True)
    wrapped: Any
    context: CallContext = _UNBOUND

    def bind(self, context: CallContext) -> "WrappedProcessor":
        """Learn how the batch looked as the call began."""
        return attrs.evolve(self, context=context)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Call it with a copy, because many of transformers' processors write into their input."""
        scores = torch.empty_like(logits)
        size = max(self.context.batch_size, 1 + max(_slots(history)))
        for rows, slots, tokens in _as_transformers(history, self.context):
            input_ids = tokens.new_zeros(size, tokens.shape[1])
            whole = logits.new_zeros(size, logits.shape[1])
            input_ids[slots], whole[slots] = tokens, logits[rows]
            scores[rows] = self._called(input_ids, whole)[slots].to(scores)
        return scores

    def _called(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """What it gives, which must have the shape of what it was given."""
        shape, given = scores.shape, self.wrapped(input_ids, scores)
        if not isinstance(given, Tensor) or given.shape != shape:
            found = f"shape {list(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
            message = (
                f"logits_processor {self.describe()} gave {found} for scores of shape {list(shape)}: it must "
                "return scores of the same shape"
            )
            raise ParameterError(message)
        return given

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
    REPEATABLE: ClassVar[bool] = False
    LAWS: ClassVar[Laws] = Laws(may_revive=True)
    allowed: Callable[[int, Tensor], list[int]]
    num_beams: int = 1
    context: CallContext = _UNBOUND

    def bind(self, context: CallContext) -> "PrefixConstraint":
        """Learn how the batch looked as the call began."""
        return attrs.evolve(self, context=context)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf for all other tokens."""
        mask = torch.full_like(logits, float("-inf"))
        for rows, slots, tokens in _as_transformers(history, self.context):
            for row, slot, line in zip(rows, slots, tokens, strict=True):
                mask[row, self._named(slot // self.num_beams, line).to(mask.device)] = 0
        kept = logits + mask
        return torch.where(kept.isneginf().all(dim=-1, keepdim=True), mask, kept)

    def _named(self, batch_id: int, tokens: Tensor) -> Tensor:
        """Its answer, int64 [n]."""
        named = self.allowed(batch_id, tokens)
        where = f"for batch_id={batch_id} after {len(tokens)} tokens"
        if not isinstance(named, (Tensor, Collection)) or isinstance(named, str):
            message = f"prefix_allowed_tokens_fn gave {named!r} {where}: it must give a list of token ids"
            raise ParameterError(message)
        if len(named) == 0:
            message = (
                f"prefix_allowed_tokens_fn gave no token {where}: it must give at least one, e.g. an EOS id "
                "where the constraint is fulfilled"
            )
            raise ParameterError(message)
        ids = torch.as_tensor(named if isinstance(named, Tensor) else [*named])
        size = self.context.vocab_size
        if ids.is_floating_point() or (size and not 0 <= int(ids.min()) <= int(ids.max()) < size):
            message = (
                f"prefix_allowed_tokens_fn gave {named!r} {where}: ids must be int in [0, {size}); take them "
                "from the tokenizer that belongs to the model"
            )
            raise ParameterError(message)
        return ids

    @property
    def is_neutral(self) -> bool:
        """Never known."""
        return False

    def describe(self) -> str:
        """The argument's name."""
        return self.NAME

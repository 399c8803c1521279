"""A chain of processors, in the order in which they are applied."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from decodekit.chain_text import read_chain
from decodekit.errors import ParameterError
from decodekit.flow import attempt, cuts, openings, run
from decodekit.head import Head
from decodekit.history import History
from decodekit.place import Scope
from decodekit.plan import Explanation, check_order, explain, needless
from decodekit.processor import CallContext, Processor, StatefulProcessor
from decodekit.scores import Memory, Scores

__all__ = ["Chain", "wide"]


def _as_tuple(processors: Iterable[Processor]) -> tuple[Processor, ...]:
    items = (processors,) if isinstance(processors, str) else tuple(processors)
    wrong = next((item for item in items if not isinstance(item, Processor)), None)
    if wrong is not None:
        message = (
            f"Chain takes instances of decodekit.Processor, and {wrong!r} is none: "
            'the text of a chain, such as "top_k=50 > min_p=0.05", is for Chain.parse'
        )
        raise ParameterError(message)
    return items


@attrs.frozen(slots=False)
class Chain:
    """Processors in the user's order; as a function, pure like each of them.

    Attributes:
        processors: first applied first.

    Raises:
        ParameterError: something else is among them.
    """

    processors: tuple[Processor, ...] = attrs.field(default=(), converter=_as_tuple)

    @classmethod
    def parse(cls, text: str) -> "Chain":
        """Read a chain from its text, such as ``"repetition_penalty=1.1 > top_k=50 > min_p=0.05"``.

        Raises:
            ParameterError: the text has another form, or a value is not allowed or one for each prompt.
            UnknownNameError: no installed plugin has a name in it.
        """
        if not isinstance(text, str):
            message = f"Chain.parse got {text!r}: it reads a text, such as 'top_k=50 > min_p=0.05'"
            raise ParameterError(message)
        from decodekit.chain_config import refuse_rows  # not above: both know chains
        from decodekit.registry import registry

        specs = read_chain(text)
        for spec in specs:
            refuse_rows(spec, text)
        return cls([registry().resolve("processors", spec) for spec in specs])

    def bind(self, context: CallContext) -> "Chain":
        """The chain for one call: bound to what the call knows, without those that change nothing.

        Raises:
            ParameterError: one processor contradicts another, or what the call knows.
        """
        bound = [attempt(processor, processor.bind, context) for processor in self.processors]
        dropped = needless(bound)
        kept = [processor for place, processor in enumerate(bound) if place not in dropped]
        check_order(kept)
        return Chain(kept)

    def explain(self, vocab_size: int | None = None, rows: int = 1) -> Explanation:
        """What each processor does, in which order, and what it looks at; print the result to read it.

        Args:
            vocab_size: measure the chain as well, on random logits of this width; left out, nothing runs.
            rows: of how many rows.
        """
        context = CallContext(vocab_size=vocab_size) if vocab_size is not None else None
        bound = self.processors if context is None else [item.bind(context) for item in self.processors]
        return explain(bound, vocab_size, rows)

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
        return tuple(attempt(processor, processor.init, prompt) for processor in self.stateful)

    def apply(
        self, logits: Tensor, history: History, states: Sequence[tuple[Any, ...]]
    ) -> tuple[Tensor, list[list[Memory]]]:
        """Process logits [B, V]; ``states`` holds one tuple a row.

        This is the definition of the chain, each processor over the whole vocabulary. `run` gives the same.

        Returns:
            The processed logits, in float32 or better, and what each stateful processor keeps of each row.
        """
        scores, memories = run(self.processors, [0] * len(self.processors), wide(logits), history, states)
        return scores.dense, memories

    def run(
        self, logits: Tensor | Head, history: History, states: Sequence[tuple[Any, ...]]
    ) -> tuple[Scores, list[list[Memory]]]:
        """The same as `apply`, looking at no more of each row than its processors need.

        A head of at least `reach` logits can be given in the place of all.
        """
        processors, reaches = self.active, self.reaches
        if not processors and not isinstance(logits, Head):
            return Scores.of(wide(logits)), [[] for _ in states]
        return run(processors, reaches, logits if isinstance(logits, Head) else wide(logits), history, states)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to do to the logits."""
        return not self.active

    @property
    def reach(self) -> int:
        """How many of the largest logits the first processor is to be shown; 0 when it needs all."""
        return self.reaches[0] if self.reaches else 0

    @cached_property
    def active(self) -> list[Processor]:
        """The processors that change something."""
        return [
            item for item in self.processors if isinstance(item, StatefulProcessor) or not item.is_neutral
        ]

    @cached_property
    def reaches(self) -> list[int]:
        """For each active processor how many of the largest logits are enough from there on; 0 for all."""
        return openings(self.active)

    @cached_property
    def opening(self) -> int | None:
        """The active processor from which on the largest logits are enough up to the end; None without one.

        All that follows is a truncation with a short form, or leaves the tokens in their order.
        """
        first = next((place for place, reach in enumerate(self.reaches) if reach), None)
        if first is None or self.stateful or not all(item.REPEATABLE for item in self.active):
            return None
        short = all(cuts(item) or item.PLACE.scope is Scope.HEAD for item in self.active[first:])
        return first if short else None

    @cached_property
    def shape(self) -> tuple[object, ...]:
        """Chains of one shape differ in parameters that may be tensors with a value for each row."""
        return tuple(_fixed(item) for item in self.active)

    def advance(self, states: tuple[Any, ...], token: int, memories: Iterable[Memory]) -> tuple[Any, ...]:
        """The states of one row after ``token``; ``memories`` is what each stateful processor kept of it."""
        return tuple(
            attempt(processor, processor.advance, state, *memory.at(token))
            for processor, state, memory in zip(self.stateful, states, memories, strict=True)
        )

    def forced(self, states: tuple[Any, ...]) -> list[int]:
        """The tokens that must come after the states of one row: the most that a processor knows."""
        pairs = zip(self.stateful, states, strict=True)
        known = [list(attempt(item, item.forced, state)) for item, state in pairs]
        return max(known, key=len, default=[])

    def __str__(self) -> str:
        return " > ".join(processor.describe() for processor in self.processors) or "none"


def _fixed(item: Processor) -> object:
    """What must be the same in all rows; one that holds something without a hash is like no other."""
    fixed: object = item
    if item.BY_ROW:
        names = [name for name in attrs.fields_dict(type(item)) if name not in item.BY_ROW]  # type: ignore[arg-type]  # the contract checks that it is one of attrs
        fixed = type(item), *(getattr(item, name) for name in names)
    try:
        hash(fixed)
    except TypeError:
        return type(item), id(item)
    return fixed


def wide(logits: Tensor) -> Tensor:
    """The logits in float32 or better."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()

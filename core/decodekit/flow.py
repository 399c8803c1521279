"""How a chain runs: over the whole vocabulary until a truncation cuts it, and then over what is left."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
import torch
from torch import Tensor

from decodekit.errors import PluginError
from decodekit.head import WIDTH, Cut, Head
from decodekit.history import History
from decodekit.place import Scope
from decodekit.processor import Processor, StatefulProcessor
from decodekit.scores import Memory, Part, Scores

__all__ = ["applied", "attempt", "cuts", "openings", "run"]

_Result = TypeVar("_Result")

_MOST = 4
"""A set of more than a fourth of the vocabulary is no shorter than the vocabulary."""


def cuts(processor: Processor) -> bool:
    """Whether a processor has a short form."""
    return type(processor).cut is not Processor.cut and processor.PLACE.scope is not Scope.ALL


def openings(processors: Sequence[Processor]) -> list[int]:
    """For each place how many of the largest logits to go on with from there; 0 where all are needed.

    That is where a truncation with a short form stands, or what leads to one and needs no more.
    """
    reaches = [0] * len(processors)
    for place in reversed(range(len(processors))):
        processor = processors[place]
        if cuts(processor):
            reaches[place] = processor.reach
        elif processor.PLACE.scope is Scope.HEAD and place + 1 < len(processors):
            reaches[place] = reaches[place + 1]
    unclean = max((place for place, processor in enumerate(processors) if processor.CLEANS), default=-1)
    return [0 if place <= unclean else reach for place, reach in enumerate(reaches)]


def applied(processor: Processor, logits: Tensor, history: History) -> Tensor:
    """What a processor without a state makes of logits [b, V], or [b, C].

    Raises:
        PluginError: it gives something else than logits of that shape.
    """
    return _checked(processor, logits, attempt(processor, processor, logits, history))


def attempt(processor: Processor, method: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a method of a processor; the traceback of an error names the processor."""
    try:
        return method(*arguments)
    except Exception as error:
        error.add_note(f"raised by the processor {_shown(processor)}")
        raise


def _shown(processor: Processor) -> str:
    """The processor in short; one whose values can't be shown by its name."""
    try:
        return processor.describe()
    except Exception:  # its own code, which must not hide the error that is being told
        return processor.NAME or type(processor).__name__


def _checked(processor: Processor, logits: Tensor, given: Tensor) -> Tensor:
    if not isinstance(given, Tensor) or given.shape != logits.shape:
        found = f"shape {list(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
        message = (
            f"the processor {processor.describe()} gave {found} for logits of shape {list(logits.shape)}: it "
            "must return a new tensor of the same shape"
        )
        raise PluginError(message)
    return given


@attrs.define(eq=False)
class Flow:
    """Rows on their way through a chain: all their logits [b, V], or the head that is left of them."""

    rows: list[int]
    history: History
    states: list[tuple[Any, ...]]
    memories: list[list[Memory]]
    logits: Tensor | None
    head: Head | None = None

    def select(self, which: Tensor, *, logits: Tensor | None = None, head: Head | None = None) -> "Flow":
        """Some of the rows, bool [b], with their logits or their head."""
        places = which.nonzero()[:, 0].tolist()
        return Flow(
            [self.rows[place] for place in places],
            self.history.select(places),
            [self.states[place] for place in places],
            [self.memories[place] for place in places],
            logits,
            head,
        )

    def part(self) -> Part:
        """What the rows are at the end of a chain."""
        if self.logits is not None:
            return Part(self.rows, self.logits)
        assert self.head is not None
        return Part(self.rows, self.head.logits, self.head.ids)

    def call(self, processor: Processor, logits: Tensor, ids: Tensor | None) -> Tensor:
        """The logits after a processor; what one with a state remembers is kept."""
        if not isinstance(processor, StatefulProcessor):
            return applied(processor, logits, self.history)
        given = [state[len(memory)] for state, memory in zip(self.states, self.memories, strict=True)]
        processed = attempt(processor, processor.process, logits, self.history, given)
        processed = _checked(processor, logits, processed)
        remembered = attempt(processor, processor.memory, logits, processed)
        for place, (kept, memory) in enumerate(zip(remembered, self.memories, strict=True)):
            memory.append(Memory(kept, None if ids is None else ids[place]))
        return processed


def run(
    processors: Sequence[Processor],
    reaches: Sequence[int],
    logits: Tensor | Head,
    history: History,
    states: Sequence[tuple[Any, ...]],
) -> tuple[Scores, list[list[Memory]]]:
    """The scores of logits [B, V] after the processors, and what each stateful one keeps of each row.

    Where a wide enough head of the logits is known already, it can be given in their place.
    """
    rows = list(range(len(history)))
    memories: list[list[Memory]] = [[] for _ in rows]
    head = logits if isinstance(logits, Head) else None
    vocab_size = logits.vocab_size if isinstance(logits, Head) else logits.shape[-1]
    flows = [
        Flow(rows, history, list(states), memories, logits if isinstance(logits, Tensor) else None, head)
    ]
    for processor, reach in zip(processors, reaches, strict=True):
        flows = [later for flow in flows for later in _step(processor, reach, flow)]
    parts = [flow.part() for flow in flows]
    return Scores.joined(parts, vocab_size), memories


def _step(processor: Processor, reach: int, flow: Flow) -> list[Flow]:
    """The rows after one more processor; those that it leaves whole and those that it cuts go apart."""
    if flow.head is None and reach and flow.logits is not None:
        flow.head, flow.logits = Head.of(flow.logits, reach), None
    if flow.head is None:
        assert flow.logits is not None
        flow.logits = flow.call(processor, flow.logits, None)
        return [flow]
    if cuts(processor):
        return _cut(processor, flow.head, flow)
    if processor.PLACE.scope is Scope.ALL:
        return [_in_places(processor, flow.head, flow)]
    if processor.PLACE.scope is Scope.HEAD:
        processed = flow.call(processor, flow.head.logits, flow.head.ids)
        flow.head = flow.head.to(processed, lambda whole: applied(processor, whole, flow.history))
        return [flow]
    head = flow.head.sorted()
    processed = flow.call(processor, head.logits, head.ids)
    flow.head = Head(processed, head.ids, head.vocab_size, complete=True).sorted()
    return [flow]


def _cut(processor: Processor, head: Head, flow: Flow) -> list[Flow]:
    """Cut the rows by the short form; those of which it is not sure by a wider head, or whole."""
    cut = attempt(processor, processor.cut, head)
    if cut is not None and (cut.clear is None or bool(cut.clear.all())):
        flow.head = head.cut(cut.floor)
        return [flow]
    flows, rest = [], flow
    if cut is not None and cut.clear is not None and bool(cut.clear.any()):
        flows.append(flow.select(cut.clear, head=head.select(cut.clear).cut(cut.floor[cut.clear])))
        rest, head = flow.select(~cut.clear), head.select(~cut.clear)
        cut = Cut(cut.floor[~cut.clear])
    reached = cut is not None and bool((head.logits[:, -1:] >= cut.floor).any())
    if reached and head.ids.shape[1] <= WIDTH and not head.complete:
        return flows + _cut(processor, head.grown(), rest)
    rest.logits, rest.head = rest.call(processor, head.dense(), None), None
    _shorten(rest)
    return [*flows, rest]


def _shorten(flow: Flow) -> None:
    """Go on with what a truncation has left, unless that is most of the vocabulary."""
    assert flow.logits is not None
    count = int((flow.logits > -torch.inf).sum(dim=-1).max())
    if count <= flow.logits.shape[-1] // _MOST:
        flow.head, flow.logits = attrs.evolve(Head.of(flow.logits, count), complete=True), None


def _in_places(processor: Processor, head: Head, flow: Flow) -> Flow:
    """Show a processor the whole rows; what it leaves of them is what was left, unless it revives a token."""
    logits = flow.call(processor, head.dense(), None)
    wide = torch.nn.functional.pad(logits, (0, 1), value=-torch.inf)
    if bool((wide.scatter(1, head.ids, -torch.inf) > -torch.inf).any()):
        flow.head, flow.logits = None, logits
    else:
        flow.head = Head(wide.gather(1, head.ids), head.ids, head.vocab_size, complete=True).sorted()
    return flow

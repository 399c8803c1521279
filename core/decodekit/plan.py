"""What becomes of a chain: what is dropped and why, what contradicts what, and how it will run."""

import statistics
import time
from collections.abc import Sequence

import attrs
import torch

from decodekit.errors import ParameterError
from decodekit.flow import cuts, openings, run
from decodekit.history import History
from decodekit.place import Phase, Scope
from decodekit.processor import Processor, StatefulProcessor

__all__ = ["Explanation", "Step", "check_order", "explain", "needless"]

_HARMLESS = {Phase.NORMALIZE, Phase.WATERMARK, Phase.MASK}
"""What may stand behind a processor that must be last: the law of what is possible stays."""
_RUNS = 5


def needless(processors: Sequence[Processor]) -> dict[int, str]:
    """The places of the processors that change nothing, and why."""
    found: dict[int, str] = {}
    before: Processor | None = None
    for place, processor in enumerate(processors):
        stateless = not isinstance(processor, StatefulProcessor)
        if processor.is_neutral:
            found[place] = "changes nothing at these values"
        elif stateless and processor.LAWS.idempotent and processor == before:
            found[place] = "stands directly behind itself, and a second time changes nothing"
        else:
            before = processor
    return found


def check_order(processors: Sequence[Processor]) -> None:
    """Raise `ParameterError` where one processor of a chain contradicts another."""
    for place, processor in enumerate(processors):
        for earlier in processors[:place]:
            problem = _problem(earlier, processor)
            if problem is not None:
                message = (
                    f"{earlier.describe()} and {processor.describe()} contradict each other in this order: "
                    f"{problem}"
                )
                raise ParameterError(message)


def _problem(earlier: Processor, later: Processor) -> str | None:
    first, second = earlier.PLACE, later.PLACE
    if first.rival and first.rival == second.rival:
        return f"both steer the {first.rival} of the text, each against the other; leave one of them out"
    if earlier.forces and earlier.forces <= later.forbids:
        return f"{later.NAME} forbids all that {earlier.NAME} forces; take the tokens out of one of them"
    if second.whole and first.phase is Phase.TRUNCATION:
        return (
            f"{later.NAME} measures the whole vocabulary, of which {earlier.NAME} has cut most; put it first"
        )
    if first.last and second.phase not in _HARMLESS:
        return f"{earlier.NAME} must be last, as what follows would act on its result; put it at the end"
    return None


@attrs.frozen
class Step:
    """One processor of a chain, explained.

    Attributes:
        text: the processor with its parameters.
        phase: what it is for.
        does: the first line of its docstring.
        looks_at: what it is shown of each row, which is what it costs.
        dropped: why the chain leaves it out; empty when it does not.
        microseconds: what the chain takes up to here and with it, for the batch; None when not measured.
    """

    text: str
    phase: str
    does: str
    looks_at: str = ""
    dropped: str = ""
    microseconds: float | None = None


@attrs.frozen
class Explanation:
    """A chain explained; print it to read it.

    Attributes:
        steps: in the order of the chain, those too that are dropped.
        draws_from: what a draw looks at.
    """

    steps: tuple[Step, ...]
    draws_from: str

    def __str__(self) -> str:
        lines, number = [], 0
        for step in self.steps:
            number += not step.dropped
            mark = f"{number}." if not step.dropped else "-"
            lines.append(f"{mark:<3} {step.text}  [{step.phase}]")
            lines.append(f"    {step.does}")
            lines.append(f"    dropped: {step.dropped}" if step.dropped else f"    looks at {step.looks_at}")
            if step.microseconds is not None:
                lines.append(f"    {step.microseconds:.0f} µs up to here")
        return "\n".join([*lines, f"A draw looks at {self.draws_from}."])

    __repr__ = __str__


def explain(processors: Sequence[Processor], vocab_size: int | None = None, rows: int = 1) -> Explanation:
    """Explain a chain, and with ``vocab_size`` measure it on random logits [rows, vocab_size].

    Raises:
        ParameterError: one processor contradicts another.
    """
    dropped = needless(processors)
    kept = [processor for place, processor in enumerate(processors) if place not in dropped]
    check_order(kept)
    sights, draws_from = _sights(kept)
    times = [None] * len(kept) if vocab_size is None else _measure(kept, vocab_size, rows)
    shown = iter(zip(sights, times, strict=True))
    steps = []
    for place, processor in enumerate(processors):
        does = (type(processor).__doc__ or "").strip().partition("\n")[0]
        step = Step(processor.describe(), processor.PLACE.phase.value, does, dropped=dropped.get(place, ""))
        if place not in dropped:
            sight, microseconds = next(shown)
            step = attrs.evolve(step, looks_at=sight, microseconds=microseconds)
        steps.append(step)
    return Explanation(tuple(steps), draws_from)


def _sights(processors: Sequence[Processor]) -> tuple[list[str], str]:
    """What each processor is shown, and what a draw is."""
    sights, state = [], "every logit"
    for processor, reach in zip(processors, openings(processors), strict=True):
        if state == "every logit" and reach:
            state = f"the {reach} largest logits, and more where these do not settle it"
        if state == "what is left" and processor.PLACE.scope is Scope.ALL:
            sights.append("what is left, each token in its place")
        else:
            sights.append(state)
        if cuts(processor):
            state = "what is left"
        elif processor.LAWS.may_revive:
            state = "every logit"
    return sights, "what is left" if state == "what is left" else "every token"


def _measure(processors: Sequence[Processor], vocab_size: int, rows: int) -> list[float | None]:
    """Microseconds of the chain up to each processor: the median of a few runs on made-up logits."""
    random = torch.Generator().manual_seed(0)
    spread = -1.5 * torch.rand(rows, vocab_size, generator=random).argsort(dim=-1).add(1).log()  # Zipf's law
    logits = spread + torch.randn(rows, vocab_size, generator=random)
    history = History.of(torch.randint(vocab_size, (rows, 256), generator=random).tolist())
    found: list[float | None] = []
    for count in range(1, len(processors) + 1):
        part = processors[:count]
        reaches, seconds = openings(part), []
        states = [_states(part, history.row(row)) for row in range(rows)]
        for _ in range(_RUNS):
            start = time.perf_counter()
            run(part, reaches, logits, history, states)
            seconds.append(time.perf_counter() - start)
        found.append(1e6 * statistics.median(seconds))
    return found


def _states(processors: Sequence[Processor], prompt: list[int]) -> tuple[object, ...]:
    return tuple(item.init(prompt) for item in processors if isinstance(item, StatefulProcessor))

"""S33, S35: what drafts and earlier calls may not leave behind, and how much a call may hold."""

import gc
import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import attrs
from torch import Tensor

from decodekit.history import History
from decodekit.processor import Processor, StatefulProcessor
from decodekit.testing.check import Draw, check
from decodekit.testing.strategy_case import Case, around, expect
from decodekit.testing.strategy_models import EXACT
from decodekit.testing.strategy_subject import StrategySubject
from decodekit.testing.violation import BrokenPromiseError

if TYPE_CHECKING:
    from decodekit.batch import Batch

__all__ = ["CHECKS", "Witness"]

_SERIES, _CALLS = 5, 20
"""A hundred calls; caches of Python and torch fill up in the first ones."""
_LEAK = 4
"""Blocks of memory a call that are no accident; a tensor or a row has more."""


@attrs.frozen
class Witness(StatefulProcessor[tuple[int, ...]]):
    """Remember the tokens that it was advanced by, and compare them with the history that it is shown."""

    NAME: ClassVar[str] = "kit_witness"

    def init(self, prompt: list[int]) -> tuple[int, ...]:
        """Nothing is generated yet."""
        return ()

    def advance(self, state: tuple[int, ...], token: int, logits: Tensor) -> tuple[int, ...]:
        """One more."""
        return (*state, token)

    def process(self, logits: Tensor, history: History, states: list[tuple[int, ...]]) -> Tensor:
        """A little less of the last token, so that the state counts."""
        for row, state in enumerate(states):
            seen = history.row(row)[int(history.prompt_lengths[row]) :]
            if list(state) != seen:
                message = f"a state that was advanced by {list(state)} was shown the generated tokens {seen}"
                raise BrokenPromiseError(message)
        return logits


@check("S33", share=0.6)
def tentative_isolation(subject: StrategySubject, draw: Draw) -> None:
    """A stateful processor sees the tokens of its row, committed or drafted, and never a rejected one."""
    case = draw(subject.cases(EXACT))
    watched: tuple[Processor, ...] = (*case.processors, Witness())
    try:
        attrs.evolve(case, processors=watched).run()
    except BrokenPromiseError as error:
        if str(error).startswith("a state"):
            expect(False, case, str(error))
        raise


@check("S35", share=0.3)
def bounded_cache(subject: StrategySubject, draw: Draw) -> None:
    """A row has no more than prompt, max_new_tokens and lookahead in the cache, a prompt no more rows."""
    case = draw(subject.cases(EXACT))
    strategy = case.strategy
    most = len(case.prompts) * max(case.copies, strategy.rows_per_prompt(case.copies))

    def count(batch: "Batch") -> None:
        message = f"{len(batch.rows)} rows are decoded at once, and rows_per_prompt allows {most}"
        expect(len(batch.rows) <= most, case, message)

    def watch(batch: "Batch") -> None:
        for row, held in zip(batch.rows, batch.target.lengths, strict=True):
            room = len(row.prompt_tokens) + case.max_new_tokens + strategy.lookahead
            message = (
                f"the cache holds {held} tokens of a row; prompt, max_new_tokens and lookahead are {room}"
            )
            expect(held <= room, case, message)

    def forward(batch: "Batch") -> None:
        count(batch)
        if "forward" in vars(batch):
            return
        original = batch.forward

        def watched(*arguments: object, **keywords: object) -> object:
            output = original(*arguments, **keywords)  # type: ignore[arg-type]  # whatever they are
            watch(batch)
            return output

        vars(batch)["forward"] = watched

    attrs.evolve(case, strategy=around(strategy, before=forward)).run()


@check("S35", most_examples=1)
def no_growth(subject: StrategySubject, draw: Draw) -> None:
    """A hundred calls, one after the other, do not hold more and more memory."""
    case = attrs.evolve(draw(subject.cases(EXACT)), max_new_tokens=3)
    case.run()
    gc.collect()
    gc.freeze()  # what is there already need not be looked at again
    try:
        growth = list(itertools.takewhile(lambda more: more > _LEAK * _CALLS, _growth(case)))
    finally:
        gc.unfreeze()
    message = f"each {_CALLS} calls left blocks of memory behind, one series after the other {growth}"
    expect(len(growth) < _SERIES, case, message)


def _growth(case: Case) -> Iterator[int]:
    """By how many blocks of memory each series of calls grows what Python holds."""
    before = sys.getallocatedblocks()
    for _ in range(_SERIES):
        for _ in range(_CALLS):
            case.run()
        gc.collect()
        after = sys.getallocatedblocks()
        yield after - before
        before = after


CHECKS = (tentative_isolation, bounded_cache, no_growth)

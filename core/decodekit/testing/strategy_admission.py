"""S39: what a row may not notice of the prompts that its batch has decoded before it came."""

import itertools
from collections import deque
from collections.abc import Sequence
from random import Random

import attrs
from hypothesis import strategies as st

from decodekit.admission import OpenBatch, OwnStops, can_admit, decode_openly
from decodekit.call import Options, open_batch
from decodekit.row import Row
from decodekit.strategy import Strategy
from decodekit.testing.check import Draw, check
from decodekit.testing.strategy_case import Case, expect_same
from decodekit.testing.strategy_subject import StrategySubject

__all__ = ["CHECKS", "Arrival"]

_LONGEST = 8
"""Tokens of a prompt: long enough for others to come and go."""


def _admits_nobody(subject: StrategySubject) -> str | None:
    return None if subject.cls.ADMITS else "nobody may join its batch while it runs (ADMITS)"


@attrs.frozen
class Arrival:
    """How prompts come.

    Attributes:
        order: in which they do.
        lengths: the most new tokens of each.
        size: how many prompts are decoded at a time, at most.
        at_once: how many come together, at most.
        gap: for how many steps those that are there are left alone before others join.
    """

    order: Sequence[int]
    lengths: Sequence[int]
    size: int
    at_once: int
    gap: int

    def __str__(self) -> str:
        return (
            f"the prompts come in the order {self.order}, {self.at_once} at once and {self.gap} steps "
            f"apart, to a batch of at most {self.size}, for at most {self.lengths} tokens"
        )


def _arrival(count: int, random: Random) -> Arrival:
    """Some arrival of so many prompts."""
    return Arrival(
        order=random.sample(range(count), count),
        lengths=random.choices(range(1, _LONGEST + 1), k=count),
        size=random.randint(2, count),
        at_once=random.randint(1, 2),
        gap=random.randint(0, 3),
    )


@check("S39", skip=_admits_nobody, share=0.5)
def admission(subject: StrategySubject, draw: Draw) -> None:
    """A prompt that joins a running batch, whenever and in whatever company, gets what it gets alone."""
    case = draw(subject.cases(least_prompts=3))
    arrival = draw(st.builds(_arrival, st.just(len(case.prompts)), st.integers(0, 99_999).map(Random)))
    first = case.take([0]).call()
    if not can_admit(case.model.module, first):  # another part of it says that prompts come batch by batch
        return
    rows = case.attempt(lambda: _admitted(case, first.strategy, arrival))
    for place, length in enumerate(arrival.lengths):
        own = sorted((row for row in rows if row.prompt == place), key=lambda row: (row.rank, row.lane))
        alone = attrs.evolve(case.take([place]), max_new_tokens=length).run()
        expect_same(case, own, alone, f"alone ({arrival})")


def _admitted(case: Case, strategy: Strategy, arrival: Arrival) -> list[Row]:
    """All rows, of prompts that join as others are decoded."""
    waiting, copies = deque(arrival.order), strategy.rows_per_prompt(case.copies)
    room, asked = arrival.size * copies, itertools.cycle(range(arrival.gap + 1))

    def wait(free: int) -> OpenBatch | None:
        count = min(free // copies, arrival.at_once, len(waiting))
        if not count or (next(asked) < arrival.gap and free < room):
            return None
        return _open(case, strategy, [waiting.popleft() for _ in range(count)], arrival.lengths)

    return [row for rows in decode_openly(wait, strategy, room, copies) for row in rows]


def _open(case: Case, strategy: Strategy, places: list[int], lengths: Sequence[int]) -> OpenBatch:
    """A batch of these prompts, each with its own length."""
    call = case.take(places).call()
    rules = {}
    for row, place in zip(call.batch.rows, places, strict=True):
        row.prompt, width = place, len(case.prompts[place])
        rules[place] = attrs.evolve(call.batch.stops, max_new_tokens=lengths[place], prompt_width=width)
    return open_batch(
        OpenBatch,
        case.model.module,
        call.request,
        strategy,
        Options(seed=0),  # so that draws come from the seeds of the rows
        call.chains,
        call.batch.rows,
        call.keep,
        OwnStops.of_each(rules),
    )


CHECKS = (admission,)

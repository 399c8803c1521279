"""The check of rows that join a running batch is shown strategies that keep something for the whole batch."""

from typing import ClassVar

import attrs
import pytest
import torch
from decodekit import Strategy, StrategyLaws
from decodekit.testing import Outcome, strategy_checks
from decodekit.testing.check import BrokenPromiseError
from decodekit.testing.strategy_admission import CHECKS
from decodekit.testing.strategy_subject import StrategySubject

KEY = "S39 admission"
SLOW = ("S22 capabilities", "S35 no growth")
"""Checks that take long, and of which no step of a strategy of this file is a case."""


@attrs.frozen
class Second(Strategy):
    """Greedy, but every other token is the second best; it counts the batch's steps, and not the row's."""

    NAME = "second"
    ADMITS: ClassVar[bool] = True
    LAWS = StrategyLaws(deterministic=True)

    def steps(self, batch):
        vars(batch)["steps_done"] = vars(batch).get("steps_done", -1) + 1
        return [batch.steps_done] * len(batch.rows)

    def step(self, batch):
        p = batch.dist(batch.logits())
        ranks = p.scores.sort(descending=True, stable=True)
        possible = ranks.values[:, 1] > -float("inf")
        odd = torch.tensor(self.steps(batch)) % 2 == 1
        batch.commit(torch.where(odd & possible, ranks.indices[:, 1], ranks.indices[:, 0]), p)


class SecondByRow(Second):
    """The right one."""

    def steps(self, batch):
        return [len(row.tokens) for row in batch.rows]


class SecondByMemo(Second):
    """Wrong in the place that the core knows of."""

    def steps(self, batch):
        batch.memo["steps"] = batch.memo.get("steps", -1) + 1
        return [batch.memo["steps"]] * len(batch.rows)


class SecondByBind(Second):
    """Wrong in what it makes for a call."""

    __slots__ = ("done",)

    def bind(self, model, context):
        bound = type(self)()
        object.__setattr__(bound, "done", [])
        return bound

    def steps(self, batch):
        self.done.append(1)
        return [len(self.done) - 1] * len(batch.rows)


@pytest.mark.parametrize("cls", [Second, SecondByMemo, SecondByBind])
def test_what_is_kept_for_the_whole_batch_is_caught(cls, verdict):
    assert "\nstrategy        Second" in verdict(KEY, cls)


def test_what_belongs_to_a_row_passes(verdict):
    assert verdict(KEY, SecondByRow, 40) is None


def test_nothing_else_catches_it():
    others = [run for key, run in strategy_checks(Second, profile="fast") if key not in (KEY, *SLOW)]
    assert len(others) > 20
    assert all(run().outcome is Outcome.PASSED for run in others)


def test_what_it_finds_is_a_test_to_paste():
    found = CHECKS[0].search(StrategySubject(SecondByMemo), 40)
    assert "declares ADMITS, and keeps steps in batch.memo" in found.text
    pasted = {}
    exec(found.test, pasted)
    with pytest.raises(BrokenPromiseError, match=r"keeps steps in batch\.memo"):
        pasted["test_s39_admission"]()


def test_a_batch_that_nobody_may_join_is_not_checked():
    @attrs.frozen
    class Closed(Second):
        ADMITS: ClassVar[bool] = False

    assert KEY not in dict(strategy_checks(Closed))
    assert KEY in dict(strategy_checks(Second))

"""Strategies made of a function, right and wrong, and the verdict of one check."""

import attrs
import pytest
import torch
from decodekit import Capability, Strategy, StrategyLaws
from decodekit.testing.strategy_checks import STRATEGY_CHECKS
from decodekit.testing.strategy_subject import StrategySubject

LOSSLESS = StrategyLaws(greedy_limit=True, lossless=True)
DETERMINISTIC = StrategyLaws(greedy_limit=True, deterministic=True)


@pytest.fixture(scope="session")
def plant():
    """``plant(step)`` makes a strategy class that draws; with ``draws=False`` one that promises not to."""

    def method(body):
        return lambda self, batch: body(batch)

    def plant(step, *, draws=True, needs=(), ahead=0, **others):
        methods = {name: method(body) for name, body in {"step": step, **others}.items()}
        laws = LOSSLESS if draws else DETERMINISTIC
        fields = {"NAME": "planted", "LAWS": laws, "NEEDS": frozenset(needs), "SAMPLES": draws}
        fields["lookahead"] = property(lambda self: ahead)
        return attrs.frozen(type("Planted", (Strategy,), {**fields, **methods}))

    return plant


@pytest.fixture(scope="session")
def speculate(plant):
    """A right strategy: draft the row's last tokens again, keep them as far as plain sampling draws them."""

    def step(batch):
        drafts = [row.since(0)[-1 - row.length % 3 :] for row in batch.rows]
        p = batch.dist(batch.logits(drafts), drafts)
        blocks = []
        for row, draft, drawn in zip(batch.rows, drafts, batch.draw(p).tolist(), strict=True):
            agreed = 0
            while agreed < len(draft) and draft[agreed] == drawn[agreed]:
                agreed += 1
            blocks.append(drawn[: agreed + 1])
            row.drafted += len(draft)
            row.accepted += agreed
        batch.commit(blocks, p)

    return plant(step, needs=(Capability.ROLLBACK, Capability.POSITIONS), ahead=3)


@pytest.fixture(scope="session")
def verdict():
    """``verdict(title, cls)`` is what one check finds, or None; the random state stays as it was.

    What is wrong gets more inputs than it mostly needs, as these are others whenever a module changes.
    """

    def verdict(title, cls, examples=200):
        check = next(item for item in STRATEGY_CHECKS if f"{item.id} {item.title}" == title)
        with torch.random.fork_rng():
            return check.counter_example(StrategySubject(cls), examples, shrink=False)

    return verdict

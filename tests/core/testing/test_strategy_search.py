"""Every check of searches and neutral values is shown a strategy that is wrong in just its way."""

import attrs
import pytest
import torch
from decodekit import Batch, Purpose, Strategy, StrategyLaws, param
from decodekit.testing.strategy_checks import STRATEGY_CHECKS
from decodekit.testing.strategy_search import CHECKS, _inclusion
from decodekit.testing.strategy_subject import StrategySubject
from decodekit_strategies.beam import Beam


@attrs.frozen
class Ranked(Strategy):
    """Commit the token of a rank; 0 is greedy decoding."""

    NAME = "ranked"
    rank: int = param(0, range="[0, 5]", neutral=0, help="The rank.")

    def step(self, batch: Batch):
        p = batch.dist(batch.logits())
        order = p.scores.sort(descending=True, stable=True).indices
        batch.commit(order[:, min(self.rank, p.scores.shape[-1] - 1)], p)


class FromOne(Ranked):
    """Counts from 1, so that its neutral value is the second."""

    def step(self, batch):
        attrs.evolve(self, rank=min(self.rank + 1, 5))._plain(batch)

    _plain = Ranked.step


class NoisyAtZero(Ranked):
    """Draws at its neutral value."""

    SAMPLES = True

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(batch.draw(p, Purpose.RESIDUAL), p)


class Truncating(Beam):
    """Keeps half of the beams."""

    def _choose(self, group):
        return Beam._choose(self, group)[: max(1, self.num_beams // 4)]


class ScoresOff(Beam):
    """Divides by one token too many."""

    def _final(self, row):
        return row.score / (len(row.tokens) + 1) ** self.length_penalty - 0.001


class Unranked(Beam):
    """Returns the worst first."""

    def finish(self, batch):
        Beam.finish(self, batch)
        batch.keep(batch.finished[::-1])


@attrs.frozen
class Stochastic(Strategy):
    """Draws for one step at a time: sequences with replacement, unless a subclass says more."""

    NAME = "stochastic"
    LAWS = StrategyLaws(without_replacement=True)
    SAMPLES = True

    def step(self, batch: Batch):
        p = batch.dist(batch.logits())
        batch.commit(batch.draw(p), p)


class FirstRanks(Stochastic):
    """The rows differ, but each is a rank and no draw."""

    def step(self, batch):
        p = batch.dist(batch.logits())
        order = p.scores.sort(descending=True, stable=True).indices
        lanes = torch.tensor([min(row.lane, p.scores.shape[-1] - 1) for row in batch.rows])
        first = [not row.tokens for row in batch.rows]
        drawn = batch.draw(p)
        batch.commit(torch.where(torch.tensor(first), order.gather(1, lanes[:, None])[:, 0], drawn), p)


PLANTED = [
    ("S23 neutral parameters", FromOne),
    ("S23 neutral parameters", NoisyAtZero),
    ("S24 exhaustive search", Truncating),
    ("S24 exhaustive search", ScoresOff),
    ("S24 ranking", Unranked),
    ("S25 draws without replacement", Stochastic),
    ("S25 draws without replacement", FirstRanks),
]


@pytest.mark.parametrize(("key", "cls"), PLANTED)
def test_a_wrong_strategy_is_caught(key, cls):
    check = next(item for item in STRATEGY_CHECKS if item.key == key)
    assert "\nstrategy " in check.counter_example(StrategySubject(cls), 200, shrink=False)


def test_right_ones_pass():
    for cls in (Ranked, Beam):
        for check in CHECKS[:3]:
            subject = StrategySubject(cls)
            assert check.skips(subject) or check.counter_example(subject, 10) is None


def test_every_check_has_something_that_it_catches():
    assert {item.key for item in CHECKS} == {key for key, _ in PLANTED}


def test_inclusion_by_hand():
    assert _inclusion({(0,): 0.5, (1,): 0.25, (2,): 0.25}, 1)[(0,)] == pytest.approx(0.5)
    assert _inclusion({(0,): 0.5, (1,): 0.25, (2,): 0.25}, 2)[(1,)] == pytest.approx(7 / 12)

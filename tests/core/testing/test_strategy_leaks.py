"""Every check of what stays behind is shown something that stays."""

import pytest
from decodekit import distribution
from decodekit.testing.strategy_leaks import CHECKS
from decodekit_strategies.greedy import Greedy
from decodekit_strategies.sample import Sample

KEPT = []
greedy, sample = Greedy().step, Sample().step


def keeps_rows(batch):
    KEPT.extend(row.fork() for row in batch.rows)
    sample(batch)


def goes_on_from_the_rejected(batch):
    """Try a token, reject it, and ask what comes after another one with what the first has left."""
    p = batch.dist(batch.logits())
    worst = p.scores.argmin(-1).tolist()
    tried = [[token] for token in worst]
    after = batch.dist(batch.logits(tried, last=True), tried, after=p)
    others = [[token, token] for token in p.argmax().tolist()]
    batch.dist(batch.logits(others, last=True), others, after=after)
    batch.commit(p.argmax(), p)


def looks_far_ahead(batch):
    batch.logits([row.since(0)[-1:] * 4 for row in batch.rows])
    greedy(batch)


def adds_rows(batch):
    batch.select([place for place in range(len(batch.rows)) for _ in range(2)])
    greedy(batch)


PLANTED = [
    ("S33 tentative isolation", goes_on_from_the_rejected),
    ("S35 bounded cache", looks_far_ahead),
    ("S35 bounded cache", adds_rows),
    ("S35 no growth", keeps_rows),
]


@pytest.mark.parametrize(("key", "step"), PLANTED)
def test_a_wrong_strategy_is_caught(key, step, plant, verdict):
    try:
        assert "\nstrategy        Planted()\n" in verdict(key, plant(step))
    finally:
        KEPT.clear()


def test_a_core_that_shows_rejected_tokens_is_caught(speculate, verdict, monkeypatch):
    assert verdict("S33 tentative isolation", speculate, 40) is None
    monkeypatch.setattr(distribution, "_advance", lambda chains, rows, states, *_: states)
    assert "was shown the generated tokens" in verdict("S33 tentative isolation", speculate)


def test_every_check_has_something_that_it_catches():
    assert {item.key for item in CHECKS} == {key for key, _ in PLANTED}

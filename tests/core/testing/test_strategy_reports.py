"""Every check of streams and counters is shown a strategy that is wrong in just the way it looks for."""

import pytest
import torch
from decodekit.testing.strategy_reports import CHECKS
from decodekit_strategies.greedy import Greedy

greedy = Greedy().step


def takes_back(batch):
    p = batch.dist(batch.logits())
    for row in batch.rows:
        row.tokens[-1:] = [0] * len(row.tokens[-1:])
    batch.commit(p.argmax(), p)


def runs_the_model_itself(batch):
    batch._sessions["target"].session.model(torch.tensor([[0]]), use_cache=False)
    greedy(batch)


def accepts_more_than_it_drafted(batch):
    greedy(batch)
    batch.rows[0].accepted += 1


def leaves_rows_out(batch):
    p = batch.dist(batch.logits())
    waits = max(len(row.tokens) for row in batch.rows) % 2 == 0
    tokens = enumerate(p.argmax().tolist())
    batch.commit([[] if waits and place else [token] for place, token in tokens], p)


def never_commits(batch):
    batch.dist(batch.logits())


def watches_the_observers(batch):
    p = batch.dist(batch.logits())
    batch.commit(batch.draw(p) if batch._keep.scores else p.argmax(), p)


PLANTED = [
    ("S16 streaming", takes_back),
    ("S17 counters", runs_the_model_itself),
    ("S17 counters", accepts_more_than_it_drafted),
    ("S18 termination", leaves_rows_out),
    ("S18 termination", never_commits),
    ("S38 observers", watches_the_observers),
]


@pytest.mark.parametrize(("title", "step"), PLANTED)
def test_a_wrong_strategy_is_caught(title, step, plant, verdict):
    assert "\nstrategy        Planted()\n" in verdict(title, plant(step))


def test_every_check_has_something_that_it_catches():
    assert {f"{item.id} {item.title}" for item in CHECKS} == {title for title, _ in PLANTED}

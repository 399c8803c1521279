"""Every check of drafts is shown a strategy that judges them wrongly, in just the way it looks for."""

from typing import Any

import attrs
import pytest
import torch
from decodekit import (
    Batch,
    Capability,
    ParameterError,
    Purpose,
    Strategy,
    StrategyLaws,
    param,
)
from decodekit.testing.strategy_checks import STRATEGY_CHECKS
from decodekit.testing.strategy_drafts import CHECKS, Stubborn
from decodekit.testing.strategy_subject import StrategySubject


@attrs.frozen
class Judge(Strategy):
    """Speculative sampling as in Leviathan et al. (2023); what goes wrong easily are methods."""

    NAME = "judge"
    NEEDS = frozenset({Capability.ROLLBACK, Capability.POSITIONS})
    LAWS = StrategyLaws(lossless=True, verifies="drafter", acceptance="rejection")
    SAMPLES = True
    POSITIONAL = True

    drafter: Any = param(Stubborn(), help="What drafts.")

    def bind(self, model, context):
        return attrs.evolve(self, drafter=self.drafter.bind(model, context))

    @property
    def models(self):
        return self.drafter.models

    def accept(self, p, q, u):
        return u < p / q

    def residual(self, p, q):
        rest = (p - q).clamp(min=0)
        return rest if rest.sum() > 0 else p

    def purpose(self):
        return Purpose.DRAFT

    def step(self, batch: Batch):
        room = [min(3, batch.stops.max_new_tokens - len(row.tokens) - 1) for row in batch.rows]
        draft = self.drafter.draft(batch, room, lambda q: batch.draw(q, self.purpose()))
        p = batch.dist(batch.logits(draft.tokens), draft.tokens)
        u = [batch.uniform(Purpose.ACCEPT, offset).tolist() for offset in range(4)]
        r = [batch.uniform(Purpose.RESIDUAL, offset).tolist() for offset in range(4)]
        blocks = []
        for place, (row, block) in enumerate(zip(batch.rows, draft.tokens, strict=True)):
            kept, law = 0, p.probs[place, 0]
            for token in block:
                q = draft.q[kept].probs[place] if draft.q else torch.eye(len(law)).double()[token]
                if not self.accept(float(law[token]), float(q[token]), u[kept][place]):
                    law = self.residual(law, q)
                    break
                kept, law = kept + 1, p.probs[place, kept + 1]
            row.drafted, row.accepted = row.drafted + len(block), row.accepted + kept
            total = law.cumsum(0)
            last = int(law.nonzero().max())
            blocks.append([*block[:kept], min(int((total <= r[kept][place] * total[-1]).sum()), last)])
        batch.commit(blocks, p)


def wrong(**methods):
    fields = {"__slots__": (), "__module__": __name__, **methods}
    return attrs.frozen(type("Wrong", (Judge,), fields))


class Coupled(Judge):
    """Says that it couples, and draws the draft with noise of its own; every law of the output is kept."""

    LAWS = attrs.evolve(Judge.LAWS, acceptance="coupled")

    def step(self, batch):
        room = [min(3, batch.stops.max_new_tokens - len(row.tokens) - 1) for row in batch.rows]
        draft = self.drafter.draft(batch, room, lambda q: batch.draw(q, Purpose.DRAFT))
        p = batch.dist(batch.logits(draft.tokens), draft.tokens)
        blocks = []
        for row, block, drawn in zip(batch.rows, draft.tokens, batch.draw(p).tolist(), strict=True):
            same = [x == y for x, y in zip(block, drawn, strict=False)]
            kept = same.index(False) if False in same else len(block)
            row.drafted, row.accepted = row.drafted + len(block), row.accepted + kept
            blocks.append(drawn[: kept + 1])
        batch.commit(blocks, p)


PLANTED = [
    ("S28 acceptance formula", wrong(accept=lambda self, p, q, u: u < min(p, q))),
    ("S28 acceptance formula", Coupled),
    ("S30 impossible drafts", wrong(accept=lambda self, p, q, u: u <= p / q)),
    ("S30 impossible drafts", wrong(accept=lambda self, p, q, u: True)),
    ("S31 draft of the target", wrong(accept=lambda self, p, q, u: u < 0.9 * p / q)),
    ("S31 draft of other tokens", wrong(residual=lambda self, p, q: (p > q).double())),
    ("S31 draft of other tokens", wrong(residual=lambda self, p, q: (p - q).abs())),
]


@pytest.mark.parametrize(("key", "cls"), PLANTED)
def test_a_wrong_rule_is_caught(key, cls):
    check = next(item for item in STRATEGY_CHECKS if item.key == key)
    assert "\nstrategy " in check.counter_example(StrategySubject(cls), 200, shrink=False)


def test_a_coupling_of_unlike_noise_is_found_by_its_acceptance_alone():
    telling = [item for item in STRATEGY_CHECKS if item.id in ("S2", "S3", "S5", "S28", "S30")]
    tries = {item.key: 200 if item.id == "S28" else 20 for item in telling}
    broken = {item.id for item in telling if item.counter_example(StrategySubject(Coupled), tries[item.key])}
    assert broken == {"S28"}


def test_every_check_has_something_that_it_catches():
    assert {item.key for item in CHECKS} == {key for key, _ in PLANTED}


def test_an_instance_that_takes_no_other_drafter_is_left_alone():
    @attrs.frozen
    class Own(Judge):
        def __attrs_post_init__(self):
            if not isinstance(self.drafter, Stubborn):
                raise ParameterError("it has its own")

    subject = StrategySubject(Own, Own())
    assert all("takes no other drafter (it has its own)" in item.skips(subject) for item in CHECKS)
    assert CHECKS[1].skips(StrategySubject(Strategy)) == "verifies names no parameter"

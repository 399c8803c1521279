"""The kit's half for drafters: right ones pass, and every check finds a fault that was planted for it."""

from typing import Any

import attrs
import pytest
import torch
from decodekit import Draft, Drafter, DrafterLaws, ParameterError, param
from decodekit.testing import ConformanceError, check_drafter, drafter_checks
from decodekit.testing.drafter_checks import DRAFTER_CHECKS
from decodekit.testing.models import MarkovModel

TARGET, SMALL = MarkovModel.random(5, seed=1), MarkovModel.random(5, seed=2)


@attrs.frozen
class Last(Drafter):
    """Drafts the last token again."""

    NAME = "last"
    often: int = param(2, range="[1, 4]", help="How often.")

    def draft(self, batch, lengths, pick):
        return Draft(
            [row.since(0)[-1:] * min(most, self.often) for row, most in zip(batch.rows, lengths, strict=True)]
        )


@attrs.frozen
class Model(Drafter):
    """Draws from another model."""

    NAME = "model"
    LAWS = DrafterLaws(reports_q=True)

    @property
    def models(self):
        return {"small": SMALL}

    def draft(self, batch, lengths, pick):
        drafts, q = [[] for _ in batch.rows], []
        for count in range(max(lengths)):
            q.append(
                batch.dist(
                    batch.logits(drafts, session="small", last=True), drafts, after=q[-1] if q else None
                )
            )
            tokens = self.taken(pick(q[-1])).tolist()
            drafts = [
                [*block, x] if count < most else block
                for block, x, most in zip(drafts, tokens, lengths, strict=True)
            ]
        return Draft(drafts, self.reported(q))

    def taken(self, tokens):
        return tokens

    def reported(self, q):
        return q


def test_right_drafters_pass():
    assert not check_drafter(Last).of("failed")
    assert not check_drafter(Model(), target=TARGET).of("failed")


def planted(base, **body):
    return attrs.frozen(type("Planted", (base,), {"__slots__": (), "__doc__": "A fault.", **body}))


def long(self, batch, lengths, pick):
    return Draft([[0] * (most + 1) for most in lengths])


def drawn(self, batch, lengths, pick):
    tokens = pick(batch.dist(torch.zeros(len(lengths), 5))).tolist()
    return Draft([[token][:most] for token, most in zip(tokens, lengths, strict=True)])


def noisy(self, batch, lengths, pick):
    torch.rand(1)
    return Last.draft(self, batch, lengths, pick)


def committing(self, batch, lengths, pick):
    for row in batch.rows:
        row.tokens.append(0)
    draft = Last.draft(self, batch, lengths, pick)
    for row in batch.rows:
        row.tokens.pop()
    batch.rows[0].tokens.append(1)
    return draft


def training(self, batch, lengths, pick):
    SMALL.train()
    return Model.draft(self, batch, lengths, pick)


FAULTS = {
    "D1 contract": planted(Last, draft=long),
    "D2 transparency": planted(Last, draft=committing),
    "D3 purity": planted(Last, draft=noisy),
    "D3 purity of draws": planted(Last, draft=drawn),
    "D4 honest q": planted(
        Model, reported=lambda self, q: [attrs.evolve(item, columns=item.scores * 0.3) for item in q]
    ),
    "D5 the model is as it was": planted(Model, draft=training),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name):
    [run] = [run for title, run in drafter_checks(FAULTS[name], target=TARGET) if name.startswith(title)]
    try:
        with pytest.raises(ConformanceError, match=r"drafter (last|model)"):
            run()
    finally:
        SMALL.eval()


def test_each_check_has_a_fault_and_what_does_not_apply_is_left_out():
    titles = {f"{item.id} {item.title}" for item in DRAFTER_CHECKS}
    assert all(any(name.startswith(title) for name in FAULTS) for title in titles)
    assert "D4 honest q" not in dict(drafter_checks(Last))


def test_a_parameter_without_a_range_needs_examples():
    @attrs.frozen
    class Free(Drafter):
        NAME = "last"
        what: Any = param(help="Anything.")

        def draft(self, batch, lengths, pick):
            return Draft([[] for _ in lengths])

    with pytest.raises(ParameterError, match="drafter last needs values of what"):
        drafter_checks(Free)[0][1]()
    assert not check_drafter(Free, examples=[{"what": 3}], profile="fast").of("failed")

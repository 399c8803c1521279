"""Every check of batches is shown a strategy, or a core, that is wrong in just the way it looks for."""

import pytest
import torch
from decodekit import request
from decodekit.session import Session
from decodekit.testing.strategy_batches import CHECKS
from decodekit_strategies.greedy import Greedy

greedy = Greedy().step
KEPT = []


def least(p):
    """The least probable of the possible tokens."""
    return p.scores.masked_fill(p.scores.isneginf(), torch.inf).argmin(-1)


def reduces_over_the_batch(batch):
    p = batch.dist(batch.logits())
    batch.commit((p.probs * (0.1 + p.probs.mean(0))).argmax(-1), p)


def depends_on_the_place(batch):
    p = batch.dist(batch.logits())
    batch.commit(torch.where(torch.arange(len(batch.rows)) % 2 == 0, p.argmax(), least(p)), p)


def keeps_by_place(batch):
    p = batch.dist(batch.logits())
    batch.commit(torch.where(torch.tensor(KEPT[: len(batch.rows)]) == 0, p.argmax(), least(p)), p)


def remember_places(batch):
    KEPT[:] = [row.length % 2 for row in batch.rows]


def ignores_the_seed(batch):
    p = batch.dist(batch.logits())
    noise = torch.Generator().manual_seed(batch.rows[0].length)
    batch.commit(torch.multinomial(p.probs, 1, generator=noise), p)


def draws_by_itself(batch):
    p = batch.dist(batch.logits())
    batch.commit(torch.multinomial(p.probs, 1), p)


def one_draw_for_all_lanes(batch):
    p = batch.dist(batch.logits())
    drawn = dict(zip((row.prompt for row in batch.rows), batch.draw(p).tolist(), strict=True))
    batch.commit([[drawn[row.prompt]] for row in batch.rows], p)


def notices_drafts(batch):
    p = batch.dist(batch.logits())
    batch.commit(p.argmax() if batch.stats()["tokens_fed"] % 2 else batch.draw(p), p)


def edits_the_prompt(batch):
    greedy(batch)
    for row in batch.rows:
        row.prompt_tokens[0] = 0


def needs_two_tokens(batch):
    assert all(row.prompt_tokens[1] >= 0 for row in batch.rows)
    greedy(batch)


def needs_three_choices(batch):
    p = batch.dist(batch.logits())
    batch.commit(p.scores.topk(3).indices[:, 0], p)


def launders(batch):
    p = batch.dist(batch.logits().nan_to_num())
    batch.commit(p.argmax(), p)


PLANTED = [
    ("S6 batch invariance", reduces_over_the_batch, {"draws": False}),
    ("S6 batch invariance", draws_by_itself, {}),
    ("S7 batch order", depends_on_the_place, {"draws": False}),
    ("S7 batch order", keeps_by_place, {"draws": False, "start": remember_places}),
    ("S8 seeds", ignores_the_seed, {}),
    ("S8 seeds", draws_by_itself, {}),
    ("S8 seeds", one_draw_for_all_lanes, {}),
    ("S10 rollback leak", notices_drafts, {}),
    ("S15 prompts stay", edits_the_prompt, {"draws": False}),
    ("S37 smallest calls", needs_two_tokens, {"draws": False}),
    ("S37 smallest calls", needs_three_choices, {"draws": False}),
    ("S37 not a number", launders, {"draws": False}),
]


@pytest.mark.parametrize(("title", "step", "options"), PLANTED)
def test_a_wrong_strategy_is_caught(title, step, options, plant, verdict):
    found = verdict(title, plant(step, **options))
    assert "\nstrategy        Planted()\n" in found or "the result depends on more than it" in found


def select_the_first(self, rows, original=Session.select):
    original(self, [0] * len(rows))


def everything_is_a_token(input_ids, mask, config):
    return input_ids, torch.ones_like(mask)


def take_nothing_back(self, counts):
    pass


BROKEN_CORE = [
    ("S9 cache honesty", Session, "select", select_the_first),
    ("S9 cache honesty", Session, "rollback", take_nothing_back),
    ("S10 rollback leak", Session, "rollback", take_nothing_back),
    ("S11 left padding", request, "fill_empty", everything_is_a_token),
]


@pytest.mark.parametrize(("title", "owner", "name", "wrong"), BROKEN_CORE)
def test_a_wrong_core_is_caught(title, owner, name, wrong, speculate, verdict, monkeypatch):
    assert verdict(title, speculate, 40) is None
    monkeypatch.setattr(owner, name, wrong)
    assert "\nstrategy        Planted()\n" in verdict(title, speculate)


def test_every_check_has_something_that_it_catches():
    assert {f"{item.id} {item.title}" for item in CHECKS} == {row[0] for row in PLANTED + BROKEN_CORE}

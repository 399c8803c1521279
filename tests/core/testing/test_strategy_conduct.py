"""Every check of conduct is shown a strategy, or a core, that is wrong in just the way it looks for."""

import random

import numpy as np
import pytest
import torch
from decodekit import Capability, CapabilityError, Distribution, sessions
from decodekit.testing.strategy_conduct import CHECKS
from decodekit_strategies.greedy import Greedy
from decodekit_strategies.sample import Sample

greedy, sample = Greedy().step, Sample().step
KEPT = []


@pytest.fixture(autouse=True)
def _forget():
    yield
    KEPT.clear()


def refuse(words):
    raise CapabilityError(words)


def model_of(batch):
    return batch._sessions["target"].session.model


def draws_by_itself(batch):
    p = batch.dist(batch.logits())
    batch.commit(torch.multinomial(p.probs, 1), p)


def draws_in_python(batch):
    random.random()
    greedy(batch)


def draws_in_numpy(batch):
    np.random.rand()
    greedy(batch)


def changes_the_config(batch):
    model_of(batch).config.use_cache = False
    greedy(batch)


def changes_the_generation_config(batch):
    model_of(batch).generation_config.temperature = 0.5
    greedy(batch)


def changes_the_mode(batch):
    model_of(batch).eval()
    greedy(batch)


def changes_a_weight(batch):
    next(model_of(batch).parameters()).data.add_(1e-9)
    greedy(batch)


def hook(batch):
    KEPT.append(model_of(batch).register_forward_hook(lambda *_: None))


def unhook(batch):
    KEPT.pop().remove()


def hooks_only_itself(batch):
    greedy(batch)


def swallows_errors(batch):
    logits = batch.logits()
    try:
        p = batch.dist(logits)
    except Exception:  # the fault that is planted
        p = Distribution(logits, logits)
    batch.commit(p.argmax(), p)


def keeps_the_batch(batch):
    KEPT.append(batch)
    greedy(batch)


def drafts_in_secret(batch):
    drafts = [[0] * (1 + place % 2) for place in range(len(batch.rows))]
    p = batch.dist(batch.logits(drafts), drafts)
    batch.commit(p.argmax()[:, :1], p)


def counts_its_steps(batch):
    KEPT.append(0)
    p = batch.dist(batch.logits())
    batch.commit(p.argmax() if len(KEPT) % 2 else batch.draw(p), p)


STILL = {"draws": False}
HOOKED = {"draws": False, "start": hook, "finish": unhook}
PLANTED = [
    ("S19 global randomness", draws_by_itself, {}),
    ("S19 global randomness", draws_in_python, STILL),
    ("S19 global randomness", draws_in_numpy, STILL),
    ("S19 global randomness", sample, STILL),
    ("S20 no traces", changes_the_config, STILL),
    ("S20 no traces", changes_the_generation_config, STILL),
    ("S20 no traces", changes_the_mode, STILL),
    ("S20 no traces", changes_a_weight, STILL),
    ("S20 no traces", hooks_only_itself, HOOKED),
    ("S20 errors get through", swallows_errors, STILL),
    ("S21 cancellation", keeps_the_batch, STILL),
    ("S21 cancellation", hooks_only_itself, HOOKED),
    ("S22 capabilities", drafts_in_secret, STILL),
    ("S34 determinism", counts_its_steps, {}),
    ("S34 draws nothing", sample, STILL),
]


@pytest.mark.parametrize(("title", "step", "options"), PLANTED)
def test_a_wrong_strategy_is_caught(title, step, options, plant, verdict):
    found = verdict(title, plant(step, **options))
    assert "\nstrategy        " in found or "the result depends on more than it" in found


@pytest.mark.parametrize(
    ("check_needs", "words"),
    [
        (lambda strategy, session: None, "and ran anyway"),
        (lambda strategy, session: session.feed(torch.tensor([[0]])) and refuse("no"), "and ran anyway"),
        (lambda strategy, session: refuse("no"), "does not name planted, MambaForCausalLM, rollback"),
    ],
    ids=["no refusal", "too late", "without names"],
)
def test_a_wrong_refusal_is_caught(check_needs, words, plant, verdict, monkeypatch):
    needy = plant(greedy, draws=False, needs=[Capability.ROLLBACK])
    assert verdict("S22 capabilities", needy) is None
    monkeypatch.setattr(sessions, "check_needs", check_needs)
    assert words in verdict("S22 capabilities", needy)


def test_every_check_has_something_that_it_catches():
    assert {f"{item.id} {item.title}" for item in CHECKS} == {row[0] for row in PLANTED}

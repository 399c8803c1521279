"""Every check of the results is shown a strategy, or a core, that is wrong in just the way it looks for."""

import pytest
from decodekit import Distribution, batch, distribution
from decodekit.stopping import StopRules
from decodekit.testing.strategy_results import CHECKS, _chi_square
from decodekit_strategies.greedy import Greedy

greedy = Greedy().step


def ignores_the_chain(batch):
    logits = batch.logits()
    batch.commit(logits.argmax(-1), batch.dist(logits))


def draws_without_the_chain(batch):
    logits = batch.logits()
    batch.commit(batch.draw(Distribution(logits, logits)), batch.dist(logits))


def last_of_equals(batch):
    p = batch.dist(batch.logits())
    batch.commit(p.scores.shape[-1] - 1 - p.scores.flip(-1).argmax(-1), p)


def second_best(batch):
    p = batch.dist(batch.logits())
    batch.commit(p.scores.topk(2).indices[:, 1], p)


def reports_raw_logits(batch):
    logits = batch.logits()
    batch.commit(batch.dist(logits).argmax(), Distribution(logits, logits))


def a_little_cold(batch):
    p = batch.dist(batch.logits())
    batch.commit(batch.draw(Distribution(p.logits, p.scores / 0.8)), p)


def goes_on_after_eos(batch):
    greedy(batch)
    for row in batch.rows:
        if row.finish_reason == "eos" and len(row.tokens) < batch.stops.max_new_tokens:
            row.finish_reason = None


def stops_early(batch):
    greedy(batch)
    for row in batch.rows:
        row.finish_reason = "length" if len(row.tokens) > 1 else row.finish_reason


def adds_one_more(batch):
    greedy(batch)
    for row in batch.rows:
        if row.finish_reason == "length":
            row.tokens.append(row.tokens[-1])
            row.logprobs.append(row.logprobs[-1])


def computes_in_the_models_dtype(batch):
    """Noise in the model's dtype: in bfloat16 it is 0 now and then, and 0 / 0 is the largest of all."""
    p = batch.dist(batch.logits())
    u = batch.exponential(p.scores.shape[-1]).neg().exp().to(batch.target.model.dtype)
    batch.commit((p.probs.to(u) / -u.log()).argmax(-1), p)


PLANTED = [
    ("S1 greedy limit", ignores_the_chain, False),
    ("S1 greedy limit", last_of_equals, False),
    ("S1 greedy limit", draws_without_the_chain, True),
    ("S2 support", ignores_the_chain, False),
    ("S2 support", second_best, False),
    ("S2 support", draws_without_the_chain, True),
    ("S3 reported log probabilities", reports_raw_logits, False),
    ("S4 sequence law of the model", a_little_cold, True),
    ("S4 sequence law of the model", greedy, True),
    ("S5 sequence law with processors", draws_without_the_chain, True),
    ("S12 end of sequence", goes_on_after_eos, False),
    ("S13 length", stops_early, False),
    ("S13 length", adds_one_more, False),
    ("S36 half precision model", computes_in_the_models_dtype, True),
]


@pytest.mark.parametrize(("title", "step", "draws"), PLANTED)
def test_a_wrong_strategy_is_caught(title, step, draws, plant, verdict):
    assert "\nstrategy        Planted()\n" in verdict(title, plant(step, draws=draws))


def only_in_the_new_block(self, row, kept):
    return any(stop in self._text(kept) for stop in self.stop_strings)


def whole_blocks(self, row, block, original=StopRules.cut):
    return block, original(self, row, block)[1]


def one_history(history, drafts):
    return history


def one_state(chains, rows, states, *_):
    return states


def one_noise(noise, rows, scores, offset, purpose, original=batch.draw):
    return original(noise, rows, scores, 0, purpose)


BROKEN_CORE = [
    ("S3 reported log probabilities", distribution, "_after", one_history),
    ("S4 sequence law of the model", batch, "draw", one_noise),
    ("S3 reported log probabilities", distribution, "_advance", one_state),
    ("S5 sequence law with processors", distribution, "_after", one_history),
    ("S12 end of sequence", StopRules, "cut", whole_blocks),
    ("S13 length", StopRules, "cut", whole_blocks),
    ("S14 stop strings", StopRules, "_completes_stop_string", only_in_the_new_block),
]


@pytest.mark.parametrize(("title", "owner", "name", "wrong"), BROKEN_CORE)
def test_a_wrong_core_is_caught(title, owner, name, wrong, speculate, verdict, monkeypatch):
    assert verdict(title, speculate, 40) is None
    monkeypatch.setattr(owner, name, wrong)
    assert "\nstrategy        Planted()\n" in verdict(title, speculate)


def test_every_check_has_something_that_it_catches():
    assert {f"{item.id} {item.title}" for item in CHECKS} == {row[0] for row in PLANTED + BROKEN_CORE}


@pytest.mark.parametrize(
    ("counts", "expected", "p"),
    [
        ([16, 4], [10, 10], 0.0072904),
        ([10, 10, 10], [10, 10, 10], 1),
        ([12, 4, 4, 0], [8, 8, 2, 2], 0.0678892),
    ],
    ids=["two cells", "as expected", "small cells join the next one"],
)
def test_chi_square(counts, expected, p):
    assert _chi_square(counts, expected) == pytest.approx(p, abs=1e-6)

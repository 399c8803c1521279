"""The short way through chains gives what the long way gives, and does no more."""

import math
from collections import Counter
from contextlib import nullcontext

import decodekit as dk
import pytest
import torch
from decodekit import CallContext, Chain, EmptySupportError, History, NonFiniteLogitsError, Purpose, Row
from decodekit.batch import Batch
from decodekit.distribution import process
from decodekit.glimpse import Glimpse
from decodekit.randomness import GlobalNoise, SeededNoise
from decodekit.session import Session
from decodekit.stopping import StopRules
from decodekit.testing.models import MarkovModel
from decodekit_processors.top_p import TopP
from hypothesis import given
from hypothesis import strategies as st

V = 3_000
BY_ROW = {
    "temperature": st.floats(0.05, 3.0),
    "top_k": st.integers(1, 90),
    "top_p": st.floats(0.01, 0.99),
    "min_p": st.floats(0.001, 1.0),
    "repetition_penalty": st.floats(0.5, 2.0),
    "frequency_penalty": st.floats(-2.0, 2.0),
    "presence_penalty": st.floats(-2.0, 2.0),
}
SETS = [
    ("temperature", "top_k", "top_p"),
    ("temperature", "top_p"),
    ("min_p",),
    ("repetition_penalty", "temperature", "min_p"),
    ("frequency_penalty", "presence_penalty", "top_k"),
]


def logits(seed, rows=4, scale=3.0):
    return scale * torch.randn(rows, V, generator=torch.Generator().manual_seed(seed))


def rows_of(numbers):
    return [
        Row(prompt=i, slot=i, seed=i, chain=number, prompt_tokens=[1, 2 + i])
        for i, number in enumerate(numbers)
    ]


HISTORY = History.of([[1, 2 + i] for i in range(4)], [[5], [], [7, 7], []])


def dist(chains, numbers, x):
    return process(chains, rows_of(numbers), lambda: HISTORY, x)


def test_every_processor_with_values_by_row_is_tried_here():
    assert {name for name, each in dk.processors().items() if each.cls.BY_ROW} == set(BY_ROW)


@pytest.mark.parametrize("noise", [SeededNoise(), GlobalNoise(4)], ids=["seeded", "global"])
@given(data=st.data(), seed=st.integers(0, 999))
def test_rows_with_values_and_sets_of_their_own_are_as_if_alone(noise, data, seed):
    x, chains = logits(seed, scale=data.draw(st.sampled_from([0.3, 3.0, 10.0]))), []
    for _ in range(4):
        names = data.draw(st.sampled_from(SETS))
        text = " > ".join(f"{name}={data.draw(BY_ROW[name])}" for name in names)
        chains.append(Chain.parse(text).bind(CallContext(vocab_size=V)))
    together = dist(chains, range(4), x)
    assert isinstance(together.columns[0], Glimpse)
    drawn = []
    wanted = torch.cat([chain.apply(x[[i]], HISTORY.select([i]), [()])[0] for i, chain in enumerate(chains)])
    whole = dk.Distribution(x, wanted)
    for scores in (together.columns[0], dist(chains, range(4), x).columns[0], whole.columns[0]):
        if len(drawn) == 1:
            assert len(scores.parts) >= 1  # looked at before the draw
        torch.manual_seed(seed)
        field = noise.field(rows_of(range(4)), [3] * 4, V, Purpose.TOKEN)
        drawn.append((scores.draw(field).tolist(), torch.get_rng_state().tolist()))
    assert drawn[0] == drawn[1] == drawn[2]
    kept = wanted > -math.inf
    assert torch.equal(together.scores > -math.inf, kept)
    assert torch.allclose(together.scores[kept], wanted[kept], 1e-5, 1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_draw_finds_what_is_not_finite(value):
    x = logits(0)
    x[2, 17] = value
    chain = Chain.parse("temperature=0.5 > top_k=5 > top_p=0.9")
    p = dist([chain], [0] * 4, x)
    field = SeededNoise().field(rows_of([0] * 4), [3] * 4, V, Purpose.TOKEN)
    with pytest.raises(NonFiniteLogitsError, match="row 2"):
        p.columns[0].draw(field)


@pytest.mark.parametrize("row", [None, 2])
def test_who_does_not_look_is_told_by_the_check(row):
    x = logits(0)
    chain = Chain.parse("temperature=0.5 > top_k=5 > top_p=0.9")
    if row is not None:
        x[row, 17] = math.nan
    for p in (dist([chain], [0] * 4, x), dist([chain], [0] * 4, x).select([0, 1])):
        with nullcontext() if row is None else pytest.raises(NonFiniteLogitsError, match="row 2"):
            p.check(1)


class Blind(dk.Strategy):
    """Commits the largest logits, and does not look at the distribution."""

    NAME = "blind"

    def step(self, batch):
        logits = batch.logits()
        batch.commit(logits.nan_to_num().argmax(-1), batch.dist(logits))


@pytest.mark.parametrize("chain", ["none", "top_k=2", "temperature=0.5 > top_p=0.9"])
def test_a_strategy_that_does_not_look_is_told_when_it_commits(chain):
    table = torch.zeros(3, 3)
    table[0, 1] = table[2, 2] = 50.0
    table[1] = math.nan
    call = {"strategy": Blind(), "processors": chain, "max_new_tokens": 5}
    with pytest.raises(NonFiniteLogitsError, match=r"row 1 \(prompt 1\) at step 1"):
        dk.generate(MarkovModel(table), torch.tensor([[2], [0]]), **call)


def test_a_draw_has_looked_already():
    p = dist([Chain.parse("temperature=0.5 > top_k=5")], [0] * 4, logits(0, scale=8.0))
    p.columns[0].draw(SeededNoise().field(rows_of([0] * 4), [3] * 4, V, Purpose.TOKEN))
    p.check(1)
    assert "parts" not in vars(p.columns[0])


def test_a_processor_before_the_truncation_can_not_hide_what_is_not_finite():
    x = logits(0)
    x[1, 9] = math.nan
    chain = Chain.parse("suppress_tokens=9 > top_k=5").bind(CallContext(vocab_size=V))
    with pytest.raises(NonFiniteLogitsError, match="row 1"):
        dist([chain], [0] * 4, x)


def test_nothing_left_is_found_at_the_draw():
    x = logits(0)
    x[3] = -math.inf
    with pytest.raises((EmptySupportError, NonFiniteLogitsError), match="row 3"):
        dist([Chain.parse("top_k=5")], [0] * 4, x).argmax()


def test_only_rows_of_which_it_is_not_sure_are_looked_at_again(monkeypatch):
    seen = Counter()
    plain = TopP.__call__

    def counting(self, x, history):
        seen[len(x)] += 1
        return plain(self, x, history)

    monkeypatch.setattr(TopP, "__call__", counting)
    x = logits(0, scale=8.0)
    x[1, :2] = 60.0  # the nucleus ends between two that tie
    p = dist([Chain.parse("top_p=0.4")], [0] * 4, x)
    assert torch.equal((p.scores > -math.inf).sum(-1)[[1]], torch.tensor([1]))
    assert seen == {1: 1}


@pytest.mark.parametrize("copies", [1, 2])
def test_a_batch_puts_rows_of_one_chain_side_by_side_and_they_keep_their_slots(copies):
    chains = [Chain.parse(text) for text in ("top_k=5", "top_k=5 > min_p=0.1", "top_k=7")]
    rows = rows_of([0, 1, 2, 1, 0])
    stops = StopRules(max_new_tokens=3)
    session = Session(MarkovModel.random(7, order=1))
    batch = Batch(rows, session, chains=chains, noise=SeededNoise(), stops=stops, copies=copies)
    batch.prefill()
    wanted = [place for place in (0, 2, 4, 1, 3) for _ in range(copies)]  # one shape with two values first
    assert [row.prompt for row in batch.rows] == wanted
    assert sorted(row.slot for row in batch.rows) == list(range(5 * copies))
    assert [row.slot // copies for row in batch.rows] == wanted

"""A small vocabulary is processed as the chain is defined, and what is wrong is still found."""

import math
from contextlib import nullcontext

import decodekit as dk
import pytest
import torch
from decodekit import CallContext, Chain, EmptySupportError, History, NonFiniteLogitsError, Purpose, Row
from decodekit.distribution import process
from decodekit.randomness import GlobalNoise, SeededNoise
from decodekit.small import MOST, Small
from hypothesis import given
from hypothesis import strategies as st

CHAINS = [
    "temperature=0.7 > top_k=3",
    "top_k=2 > temperature=1.5",
    "repetition_penalty=1.4 > temperature=0.3 > top_p=0.8",
    "suppress_tokens=1 > min_p=0.3",
    "temperature=0.5 > top_k=4 > top_p=0.6 > min_p=0.1",
]
FIELD = {"seeded": SeededNoise(), "global": GlobalNoise(4)}


def rows_of(count):
    return [Row(prompt=i, slot=i, seed=i, prompt_tokens=[1, 0]) for i in range(count)]


def history(count):
    return History.of([[1, 0]] * count, [[2] * (i % 3) for i in range(count)])


def processed(text, x):
    chain = Chain.parse(text).bind(CallContext(vocab_size=x.shape[1]))
    return chain, process([chain], rows_of(len(x)), lambda: history(len(x)), x)


@pytest.mark.parametrize("noise", FIELD.values(), ids=FIELD)
@pytest.mark.parametrize("text", CHAINS)
@given(seed=st.integers(0, 999), count=st.integers(1, 4), vocab_size=st.integers(5, 60))
def test_scores_and_draws_are_those_of_the_definition(noise, text, seed, count, vocab_size):
    x = 4 * torch.randn(count, vocab_size, generator=torch.Generator().manual_seed(seed))
    chain, p = processed(text, x)
    wanted = chain.apply(x, history(count), [()] * count)[0]
    drawn = []
    for scores in (p.columns[0], dk.Distribution(x, wanted).columns[0]):
        torch.manual_seed(seed)
        field = noise.field(rows_of(count), [3] * count, vocab_size, Purpose.TOKEN)
        drawn.append((scores.draw(field).tolist(), torch.get_rng_state().tolist()))
    assert isinstance(p.columns[0], Small)
    assert drawn[0] == drawn[1]
    assert torch.equal(p.scores, wanted)
    assert torch.equal(p.argmax(), wanted.argmax(-1))


def draw(p):
    count, vocab_size = p.logits.shape
    return p.columns[0].draw(SeededNoise().field(rows_of(count), [3] * count, vocab_size, Purpose.TOKEN))


@pytest.mark.parametrize("look", [draw, lambda p: p.argmax(), lambda p: p.scores, lambda p: p.check(1)])
@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_whoever_looks_finds_what_is_not_finite(look, value):
    x = torch.randn(3, 9)
    if value is not None:
        x[2, 5] = value
    _, p = processed("temperature=0.5 > top_k=4", x)
    with nullcontext() if value is None else pytest.raises(NonFiniteLogitsError, match="row 2"):
        look(p)


def test_a_row_without_any_token_is_found():
    x = torch.randn(2, 9)
    x[1] = -math.inf
    with pytest.raises((EmptySupportError, NonFiniteLogitsError), match="row 1"):
        draw(processed("top_k=4", x)[1])


def test_a_processor_before_the_truncation_can_not_hide_what_is_not_finite():
    x = torch.randn(2, 9)
    x[1, 3] = math.nan
    with pytest.raises(NonFiniteLogitsError, match="row 1"):
        processed("suppress_tokens=3 > top_k=4", x)


def test_a_draw_has_looked_already():
    _, p = processed("top_k=4", torch.randn(2, 9))
    draw(p)
    p.check(1)
    assert "parts" not in vars(p.columns[0])


def test_a_large_vocabulary_goes_the_short_way():
    _, p = processed("top_k=4", torch.randn(2, MOST // 2 + 1))
    assert not isinstance(p.columns[0], Small)

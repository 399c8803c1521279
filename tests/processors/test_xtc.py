import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.xtc import XTC
from hypothesis import given
from hypothesis import strategies as st

HISTORY = History.of([[0]])


def oracle(row: OracleRow, probability, threshold, exempt_ids):
    """The mixture of both sides of the coin, in the scale of the tokens that stay."""
    weights = [math.exp(x - max(row.logits)) for x in row.logits]
    p = [weight / math.fsum(weights) for weight in weights]
    top = [q for q in p if q >= threshold and q > 0]
    removed = {i for i, q in enumerate(p) if top and q > min(top) and q >= threshold} - set(exempt_ids)
    rest = math.fsum(q for i, q in enumerate(p) if i not in removed)
    gain = probability / rest + 1 - probability
    factor = (1 - probability) / gain
    change = math.log(factor) if factor else -math.inf
    return [x + change if i in removed else x for i, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(XTC, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


def law(processor, p):
    return processor(torch.tensor([p], dtype=torch.float64).log(), HISTORY).softmax(-1)[0]


def test_the_law_is_the_mixture_of_heads_and_tails():
    tails = torch.tensor([0.5, 0.2, 0.2, 0.1])
    heads = torch.tensor([0, 0.4, 0.4, 0.2])  # the tied 0.2 are both the least probable top choice
    for q in (0.0, 0.3, 1.0):
        got = law(XTC(q, 0.15), tails.tolist())
        assert got == pytest.approx((q * heads + (1 - q) * tails).tolist(), abs=1e-6)


@pytest.mark.parametrize("p", [[0.9, 0.05, 0.05], [0.5, 0.5, 0.0]])
def test_without_two_top_choices_nothing_changes(p):
    assert law(XTC(1.0, 0.1), p).tolist() == pytest.approx(p)


def test_exempt_tokens_never_lose_and_those_without_a_logit_are_ignored():
    got = law(XTC(1.0, 0.1, (0, 99)), [0.5, 0.3, 0.15, 0.05])
    assert got.tolist() == pytest.approx([0.5 / 0.7, 0, 0.15 / 0.7, 0.05 / 0.7])


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 1)), st.floats(0, 1), st.floats(0.01, 0.5))
def test_no_more_probability_moves_than_the_share_of_steps(x, q, threshold):
    moved = (XTC(q, threshold)(x, HISTORY).softmax(-1) - x.softmax(-1)).abs().sum() / 2
    assert moved <= q + 1e-6

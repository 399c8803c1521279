import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.top_h import TopH
from hypothesis import given
from hypothesis import strategies as st
from transformers import TopHLogitsWarper

HISTORY = History.of([[0], [1]])
# Odd numbers: with h = 0.5 and equal tokens the border falls on one, and rounding decides.
EXAMPLES = [{"top_h": 0.0123}, {"top_h": 0.4567}, {"top_h": 0.937}]


def oracle(row: OracleRow, top_h):
    order = sorted(range(len(row.logits)), key=lambda i: -row.logits[i])[:100]
    weights = [math.exp(row.logits[i] - max(row.logits)) for i in order]
    p = [weight / math.fsum(weights) for weight in weights]
    terms = [-pi * math.log(pi) if pi > 0 else math.inf for pi in p]
    entropy = math.fsum(term for term in terms if term < math.inf)
    kept, carried = {order[0]}, 0.0
    for i, term in zip(order, terms, strict=True):
        carried += term
        if carried <= top_h * entropy:
            kept.add(i)
    return [x if i in kept else -math.inf for i, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(TopH, examples=EXAMPLES, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    (st.integers(2, 64) | st.integers(99, 300)).flatmap(lambda v: logits(v, 2)),
    st.floats(0, 1, exclude_min=True),
)
def test_same_as_transformers(x, top_h):
    assert torch.equal(TopH(top_h)(x, HISTORY), TopHLogitsWarper(top_h)(None, x))


def test_no_more_than_a_hundred_stay():
    x = torch.linspace(0, 1, 300)[None]
    assert TopH(1.0)(x, History.of([[0]])).isfinite().nonzero()[:, 1].min() >= 200


def test_the_share_is_of_the_entropy_and_not_of_the_mass():
    """H = 1.04; the terms are 0.35, 0.35, 0.35 though p is 0.5, 0.25, 0.25, so 0.4 H keeps one."""
    x = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert TopH(0.4)(x, History.of([[0]])).isfinite().tolist() == [[True, False, False]]
    assert TopH(0.99)(x, History.of([[0]])).isfinite().sum() == 2

import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.min_p import MinP
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import MinPLogitsWarper

HISTORY = History.of([[0], [1]])
EXACT = (torch.float32, torch.float64)


def oracle(row: OracleRow, min_p, min_tokens_to_keep):
    largest = max(row.logits)
    order = sorted(range(len(row.logits)), key=lambda i: -row.logits[i])
    kept = {i for i, x in enumerate(row.logits) if math.exp(x - largest) >= min_p} | set(
        order[:min_tokens_to_keep]
    )
    return [x if i in kept else -math.inf for i, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(MinP, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 2)), st.floats(0, 1))
def test_same_as_transformers(x, min_p):
    assert torch.equal(MinP(min_p)(x, HISTORY), MinPLogitsWarper(min_p)(None, x))


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 1)), st.floats(0, 1), st.integers(2, 70))
def test_same_as_transformers_with_tokens_to_keep(x, min_p, least):
    p = x.softmax(-1)
    assume(len(p.unique()) == len(x.unique()))  # see the next test
    ours = MinP(min_p, least)(x, History.of([[0]]))
    assert torch.equal(ours, MinPLogitsWarper(min_p, min_tokens_to_keep=least)(None, x))


def test_keeps_the_most_probable_where_transformers_ranks_probabilities_that_are_all_zero():
    x = torch.tensor([[15_000.0, -2_900.0, -21_000.0, 5_600.0, -10_000.0, -14_000.0, 4_000.0]])
    theirs = MinPLogitsWarper(1.0, min_tokens_to_keep=2)(None, x)
    assert not theirs[0, 3].isfinite()
    assert MinP(1.0, 2)(x, History.of([[0]])).isfinite().nonzero()[:, 1].tolist() == [0, 3]


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 2, dtypes=EXACT[1:])), st.floats(0.01, 1))
def test_divided_by_temperature_it_is_another_min_p(x, min_p):
    """min-p(a) after T is T after min-p(a^T): methods A.5."""
    t = 2.0
    first, then = MinP(min_p)(x / t, HISTORY), MinP(min_p**t)(x, HISTORY) / t
    border = ((x - x.amax(-1, keepdim=True)) / t - math.log(min_p)).abs() < 1e-9
    assume(not border.any())
    assert torch.equal(first, then)


def test_at_one_only_the_largest_stay():
    out = MinP(1.0)(torch.tensor([[1.0, 3.0, 3.0, 2.9]]), History.of([[0]]))
    assert out.isfinite().tolist() == [[False, True, True, False]]

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.top_k import TopK
from hypothesis import given
from hypothesis import strategies as st
from transformers import TopKLogitsWarper

HISTORY = History.of([[0], [1]])


def oracle(row: OracleRow, top_k):
    floor = sorted(row.logits, reverse=True)[:top_k][-1] if top_k else -float("inf")
    return [x if x >= floor else -float("inf") for x in row.logits]


CHECKS = dict(processor_checks(TopK, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 2)), st.integers(1, 70))
def test_same_as_transformers(x, top_k):
    assert torch.equal(TopK(top_k)(x, HISTORY), TopKLogitsWarper(top_k)(None, x))


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 2)), st.integers(1, 70), st.integers(1, 70))
def test_two_of_them_are_the_smaller_one(x, a, b):
    assert torch.equal(TopK(a)(TopK(b)(x, HISTORY), HISTORY), TopK(min(a, b))(x, HISTORY))


def test_all_that_tie_with_the_last_stay():
    out = TopK(2)(torch.tensor([[3.0, 1.0, 1.0, 0.0]]), History.of([[0]]))
    assert out.isfinite().tolist() == [[True, True, True, False]]

import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.epsilon_cutoff import EpsilonCutoff
from hypothesis import given
from hypothesis import strategies as st
from transformers import EpsilonLogitsWarper

HISTORY = History.of([[0], [1]])


def oracle(row: OracleRow, epsilon_cutoff, min_tokens_to_keep):
    weights = [math.exp(x - max(row.logits)) for x in row.logits]
    least = sorted(row.logits, reverse=True)[:min_tokens_to_keep][-1]
    return [
        x if x >= least or weight / math.fsum(weights) >= epsilon_cutoff else -math.inf
        for x, weight in zip(row.logits, weights, strict=True)
    ]


CHECKS = dict(processor_checks(EpsilonCutoff, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 64).flatmap(lambda v: logits(v, 2)),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.integers(1, 70),
)
def test_same_as_transformers(x, epsilon, least):
    theirs = EpsilonLogitsWarper(epsilon, min_tokens_to_keep=least)(None, x)
    assert torch.equal(EpsilonCutoff(epsilon, least)(x, HISTORY), theirs)


def test_a_token_at_the_floor_stays():
    x = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert EpsilonCutoff(0.25)(x, History.of([[0]])).isfinite().all()
    assert EpsilonCutoff(0.26)(x, History.of([[0]])).isfinite().tolist() == [[True, False, False]]


def test_the_most_probable_stay_below_the_floor_with_their_ties():
    x = torch.tensor([[1.0, 1.0, 0.0]])
    assert EpsilonCutoff(0.9)(x, History.of([[0]])).isfinite().tolist() == [[True, True, False]]

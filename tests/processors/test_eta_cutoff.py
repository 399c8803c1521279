import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.eta_cutoff import EtaCutoff
from hypothesis import given
from hypothesis import strategies as st
from transformers import EtaLogitsWarper

HISTORY = History.of([[0], [1]])


def oracle(row: OracleRow, eta_cutoff, min_tokens_to_keep):
    weights = [math.exp(x - max(row.logits)) for x in row.logits]
    p = [weight / math.fsum(weights) for weight in weights]
    entropy = -math.fsum(pi * math.log(pi) for pi in p if pi > 0)
    eta = min(eta_cutoff, math.sqrt(eta_cutoff) * math.exp(-entropy))
    least = sorted(row.logits, reverse=True)[:min_tokens_to_keep][-1]
    return [x if x >= least or pi >= eta else -math.inf for x, pi in zip(row.logits, p, strict=True)]


CHECKS = dict(processor_checks(EtaCutoff, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 64).flatmap(lambda v: logits(v, 2)),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.integers(1, 70),
)
def test_same_as_transformers(x, epsilon, least):
    theirs = EtaLogitsWarper(epsilon, min_tokens_to_keep=least)(None, x)
    assert torch.equal(EtaCutoff(epsilon, least)(x, HISTORY), theirs)


def test_the_floor_sinks_where_the_row_is_flat():
    """Of 1,000 tokens each has p = 0.001 < ε, and all stay; beside one sure token they all go."""
    flat, peaked = torch.zeros(1, 1_000), torch.zeros(1, 1_000)
    peaked[0, 0] = 12.0
    assert EtaCutoff(0.01)(flat, History.of([[0]])).isfinite().all()
    assert EtaCutoff(0.01)(peaked, History.of([[0]])).isfinite().sum() == 1

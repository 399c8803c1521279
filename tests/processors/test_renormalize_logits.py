import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.renormalize_logits import RenormalizeLogits
from hypothesis import given
from hypothesis import strategies as st
from transformers import LogitNormalization


def oracle(row: OracleRow, renormalize_logits):
    largest = max(row.logits)
    total = largest + math.log(math.fsum(math.exp(x - largest) for x in row.logits))
    return [x - total if renormalize_logits else x for x in row.logits]


CHECKS = dict(processor_checks(RenormalizeLogits, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 2)))
def test_same_as_transformers(x):
    assert torch.equal(RenormalizeLogits()(x, History.of([[0], [1]])), LogitNormalization()(None, x))


def test_the_probabilities_sum_to_one():
    out = RenormalizeLogits()(torch.tensor([[3.0, 1.0, -math.inf]]), History.of([[0]]))
    assert float(out.exp().sum()) == pytest.approx(1)

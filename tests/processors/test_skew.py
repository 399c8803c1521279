import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit_processors.skew import Skew
from hypothesis import given
from hypothesis import strategies as st

HISTORY = History.of([[0]])


def oracle(row: OracleRow, skew):
    """By the chance of each token under the power of F, with logarithms where p is no more than a trace."""
    if skew == 0:
        return row.logits
    order = sorted(range(len(row.logits)), key=lambda i: -row.logits[i])
    power, result = math.exp(skew), [-math.inf] * len(order)
    largest = row.logits[order[0]]
    total = math.log(math.fsum(math.exp(x - largest) for x in row.logits))
    cumulated = 0.0
    for i in order:
        weight = math.exp(row.logits[i] - largest)
        cumulated += weight
        share = weight / cumulated
        if share == 1:
            gain = 0.0
        elif share > 1e-15:
            gain = math.log(-math.expm1(power * math.log1p(-share)))
        else:
            gain = skew + row.logits[i] - largest - math.log(cumulated)
        result[i] = power * (math.log(cumulated) - total) + gain
    return result


CHECKS = dict(processor_checks(Skew, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


def test_the_worked_example():
    x = torch.tensor([[0.3, 0.6, 0.1]], dtype=torch.float64).log()
    assert Skew(0.5)(x, HISTORY).exp()[0].tolist() == pytest.approx([0.4098, 0.4308, 0.1595], abs=1e-4)


def test_it_is_the_law_of_skewed_draws():
    x = torch.tensor([[0.1, 0.6, 0.3]], dtype=torch.float64).log()
    uniform = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    skewed = uniform ** math.exp(-0.7)
    drawn = torch.bucketize(skewed, torch.tensor([0.6, 0.9], dtype=torch.float64)).bincount() / 200_000
    assert Skew(0.7)(x, HISTORY).exp()[0, [1, 2, 0]].tolist() == pytest.approx(drawn.tolist(), abs=0.006)
    assert Skew(0.5)(x, HISTORY).exp()[0, [1, 2, 0]].tolist() != pytest.approx(drawn.tolist(), abs=0.006)


@given(st.floats(-5, 5).filter(bool), st.integers(2, 5_000))
def test_the_result_is_normalised_in_a_large_vocabulary(skew, vocab_size):
    x = torch.randn(1, vocab_size, generator=torch.Generator().manual_seed(vocab_size)) * 4
    assert Skew(skew)(x, HISTORY).exp().sum() == pytest.approx(1, abs=1e-3)

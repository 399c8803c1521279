import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit_processors.top_a import TopA


def oracle(row: OracleRow, top_a):
    weights = [math.exp(x - max(row.logits)) for x in row.logits]
    p = [weight / math.fsum(weights) for weight in weights]
    return [x if q >= top_a * max(p) ** 2 else -math.inf for x, q in zip(row.logits, p, strict=True)]


CHECKS = dict(processor_checks(TopA, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@pytest.mark.parametrize(("top_a", "kept"), [(0.1, 4), (0.3, 3), (0.9, 2), (1.0, 1)])
def test_the_floor_goes_with_the_square_of_the_largest(top_a, kept):
    x = torch.tensor([[0.5, 0.23, 0.2, 0.07]]).log()  # floors: 0.025, 0.075, 0.225, 0.25
    assert int(TopA(top_a)(x, History.of([[0]])).isfinite().sum()) == kept


def test_of_two_equal_tokens_none_is_cut():
    assert TopA(1.0)(torch.zeros(1, 2), History.of([[0]])).tolist() == [[0.0, 0.0]]

import math

import pytest
import torch
from decodekit import History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit_processors.top_n_sigma import TopNSigma

HISTORY = History.of([[0]])


def oracle(row: OracleRow, top_n_sigma):
    finite = [x for x in row.logits if x > -math.inf]
    mean = math.fsum(finite) / len(finite)
    sigma = math.sqrt(math.fsum((x - mean) ** 2 for x in finite) / len(finite))
    floor = max(finite) - top_n_sigma * sigma
    return [x if x >= floor else -math.inf for x in row.logits]


CHECKS = dict(processor_checks(TopNSigma, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@pytest.mark.parametrize(("n", "kept"), [(0.5, 1), (0.99, 2), (1.5, 3), (2.8, 4)])
def test_the_floor_lies_so_many_deviations_below_the_largest(n, kept):
    x = torch.tensor([[3.0, 2.0, 1.5, -0.5, -math.inf]])  # σ = 1.275
    assert int(TopNSigma(n)(x, HISTORY).isfinite().sum()) == kept


def test_the_only_possible_token_stays():
    x = torch.tensor([[-math.inf, 2.0, -math.inf]])
    assert torch.equal(TopNSigma(1.0)(x, HISTORY), x)


def test_zero_is_refused():
    with pytest.raises(ParameterError, match=r"top_n_sigma=0\.0.*\(0, inf\).*leave it out"):
        TopNSigma(0)

import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.p_less import PLess
from hypothesis import given
from hypothesis import strategies as st

HISTORY = History.of([[0], [1]])


def oracle(row: OracleRow, norm):
    weights = [math.exp(x - max(row.logits)) for x in row.logits]
    p = [weight / math.fsum(weights) for weight in weights]
    floor = math.fsum(q * q for q in p)
    count = sum(x > -math.inf for x in row.logits)
    if norm:
        floor = (count * floor - 1) / (count - 1) if count > 1 else 0
    return [
        x if q >= floor or math.isclose(q, max(p)) else -math.inf for x, q in zip(row.logits, p, strict=True)
    ]


CHECKS = dict(processor_checks(PLess, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@pytest.mark.parametrize(("norm", "kept"), [(False, 1), (True, 2)])
def test_the_floor_is_the_chance_that_two_draws_agree(norm, kept):
    x = torch.tensor([[0.5, 0.3, 0.1, 0.1]]).log()  # L = 0.36, normalised 0.147
    assert int(PLess(norm)(x, HISTORY.select([0])).isfinite().sum()) == kept


@pytest.mark.parametrize("norm", [False, True])
@given(st.integers(2, 300))
def test_a_uniform_row_stays_whole_in_spite_of_rounding(norm, vocab_size):
    x = torch.zeros(1, vocab_size)
    assert torch.equal(PLess(norm)(x, HISTORY.select([0])), x)


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 2)))
def test_normalised_keeps_at_least_as_much(x):
    plain, norm = PLess()(x, HISTORY), PLess(norm=True)(x, HISTORY)
    assert not (plain.isfinite() & ~norm.isfinite()).any()

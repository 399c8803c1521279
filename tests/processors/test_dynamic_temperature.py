import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.dynamic_temperature import DynamicTemperature
from hypothesis import given
from hypothesis import strategies as st

HISTORY = History.of([[0]])


def oracle(row: OracleRow, low, high, exponent):
    weights = [math.exp(x - max(row.logits)) for x in row.logits]
    p = [weight / math.fsum(weights) for weight in weights]
    entropy = -math.fsum(q * math.log(q) for q in p if q > 0)
    count = sum(x > -math.inf for x in row.logits)
    share = min(1.0, max(0.0, entropy / math.log(count))) if count > 1 else 0.0
    return [x / (low + (high - low) * share**exponent) for x in row.logits]


CHECKS = dict(processor_checks(DynamicTemperature, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


def test_what_knows_nothing_gets_the_upper_end():
    x = torch.tensor([[3.0, 3.0, 3.0, -math.inf]])  # three of four are possible
    out = DynamicTemperature(0.5, 1.5)(x, HISTORY)
    assert out.tolist() == [pytest.approx([2.0, 2.0, 2.0, -math.inf])]


def test_what_is_certain_gets_the_lower_end():
    out = DynamicTemperature(0.5, 1.5)(torch.tensor([[999.0, 0.0, -7.0]]), HISTORY)
    assert out.tolist() == [[1998.0, 0.0, -14.0]]


@given(
    st.integers(2, 64).flatmap(lambda v: logits(v, 1, dtypes=[torch.float64])),
    st.floats(0.1, 5),
    st.floats(0.1, 5),
    st.floats(0.1, 5),
)
def test_the_temperature_stays_between_its_ends(x, low, high, exponent):
    out = DynamicTemperature(low, high, exponent)(x, HISTORY)
    used = (x / out)[x.isfinite() & (x != 0)]
    assert ((used >= min(low, high) - 1e-9) & (used <= max(low, high) + 1e-9)).all()

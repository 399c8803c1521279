import pytest
import torch
from decodekit import History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.temperature import Temperature
from hypothesis import given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper


def oracle(row: OracleRow, temperature):
    return [x / temperature for x in row.logits]


CHECKS = dict(processor_checks(Temperature, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 2)), st.floats(0.01, 100))
def test_same_as_transformers(x, temperature):
    theirs = TemperatureLogitsWarper(temperature)(None, x)
    assert torch.equal(Temperature(temperature)(x, History.of([[0], [1]])), theirs)


@pytest.mark.parametrize("temperature", [1e-31, 1e-40, 5e-324])
def test_tiny_temperature_is_greedy_without_overflow(temperature):
    x = torch.tensor([[5.0, 4.0, -torch.inf], [-7.0, -6.5, -8.0]])
    out = Temperature(temperature)(x, History.of([[0], [1]]))
    assert torch.softmax(out, dim=-1).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_entropy_grows_with_temperature():
    x = torch.randn(1, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    laws = [
        torch.distributions.Categorical(logits=Temperature(t)(x, History.of([[0]])))
        for t in (0.1, 0.5, 1, 2, 9)
    ]
    entropies = [float(law.entropy()) for law in laws]
    assert entropies == sorted(entropies)


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), "hot", True, None])
def test_refuses_what_is_not_a_positive_number(value):
    with pytest.raises(ParameterError, match=r"temperature=.*must be float in \(0, inf\).*greedy"):
        Temperature(value)

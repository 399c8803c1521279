import math

import pytest
import torch
from decodekit import History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit_processors.quadratic import Quadratic


def oracle(row: OracleRow, smoothing_factor, smoothing_curve):
    if smoothing_factor == 0:
        return row.logits
    largest, k, s = max(row.logits), (3 - smoothing_curve) / 2, (smoothing_curve - 1) / 2
    bent = []
    for x in row.logits:
        d = x - largest if x > -math.inf else 0.0
        y = largest - k * smoothing_factor * d**2 + s * smoothing_factor * d**3
        bent.append(y if x > -math.inf else x)
    return bent


CHECKS = dict(processor_checks(Quadratic, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@pytest.mark.parametrize(
    ("curve", "wanted"), [(1.0, [4, 3.5, 2.0, -math.inf]), (3.0, [4, 3.5, 0, -math.inf]), (2.0, [4, 3.5, 1])]
)
def test_the_curve_leads_from_a_parabola_to_a_cubic(curve, wanted):
    x = torch.tensor([[4.0, 3.0, 2.0, -math.inf]])
    assert Quadratic(0.5, curve)(x, History.of([[0]]))[0, : len(wanted)].tolist() == wanted


def test_a_curve_that_would_let_the_second_token_overtake_is_refused():
    with pytest.raises(ParameterError, match=r"smoothing_curve=5\.0.*\[1, 3\]"):
        Quadratic(1.0, 5.0)

import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit_processors.tfs import TailFree

HISTORY = History.of([[0]])


def oracle(row: OracleRow, tfs):
    order = sorted(range(len(row.logits)), key=lambda i: -row.logits[i])
    order = [i for i in order if row.logits[i] > -math.inf]
    weights = [math.exp(row.logits[i] - row.logits[order[0]]) for i in order]
    p = [weight / math.fsum(weights) for weight in weights]
    bends = [abs(p[i] - 2 * p[i + 1] + p[i + 2]) for i in range(len(p) - 2)]
    if tfs == 1 or sum(bends) == 0:
        return row.logits
    count = 1 + sum(sum(bends[: i + 1]) <= tfs * sum(bends) for i in range(len(bends)))
    return [x if i in order[:count] else -math.inf for i, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(TailFree, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@pytest.mark.parametrize(("tfs", "kept"), [(0.0, 1), (0.6, 1), (0.68, 2), (0.72, 3), (0.999, 3)])
def test_keeps_its_share_of_the_bends(tfs, kept):
    x = torch.tensor([[0.5, 0.25, 0.16, 0.06, 0.03]]).log()  # bends: 0.16, 0.01, 0.07 or 67, 4, 29 percent
    assert int(TailFree(tfs)(x, HISTORY).isfinite().sum()) == kept


@pytest.mark.parametrize("x", [[1.0, 1.0, 1.0], [5.0, 0.0], [5.0, 0.0, -math.inf], [2.0, -math.inf]])
def test_a_row_without_a_bend_stays_as_it_is(x):
    assert TailFree(0.5)(torch.tensor([x]), HISTORY).tolist() == [x]

import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit_processors.mirostat_v1 import MirostatV1

HISTORY = History.of([[0]])


def size(logits, mu):
    """k by the paper's formula, for any s but 1, and with its limits at the ends."""
    order = sorted((x for x in logits if x > -math.inf), reverse=True)
    head = order[:100]
    t = [math.log((i + 2) / (i + 1)) for i in range(len(head) - 1)]
    b = [head[i] - head[i + 1] for i in range(len(head) - 1)]
    if len(order) == 1:
        return 1
    s = max(math.fsum(x * y for x, y in zip(t, b, strict=True)) / math.fsum(x * x for x in t), 1e-6)
    n, epsilon = len(order), s - 1
    exponent = (math.log(epsilon / (1 - n**-epsilon)) + mu * math.log(2)) / s
    return min(n, max(1, int(math.exp(min(exponent, 50)))))


def kept(logits, mu):
    floor = sorted(logits, reverse=True)[size(logits, mu) - 1]
    return [x if x >= floor else -math.inf for x in logits]


def surprise(logits, token):
    total = math.log(math.fsum(math.exp(x - max(logits)) for x in logits))
    return (total - (logits[token] - max(logits))) / math.log(2)


def oracle(row: OracleRow, tau, eta):
    """The past as the kit makes it: the row itself, with the chosen token made the largest."""
    mu = 2 * tau
    for token in row.tokens[row.prompt_length :]:
        past = [max(row.logits) + 1 if i == token else x for i, x in enumerate(row.logits)]
        mu -= eta * (surprise(kept(past, mu), token) - tau)
    return kept(row.logits, mu)


CHECKS = dict(processor_checks(MirostatV1, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


def zipf(s, vocab_size):
    return -s * torch.arange(1, vocab_size + 1, dtype=torch.float64).log()[None]


@pytest.mark.parametrize(("mu", "wanted"), [(3.0, 2), (5.0, 6), (10.0, 65), (-9.0, 1), (99.0, 1000)])
def test_k_follows_the_formula_on_a_row_that_is_zipfs_law(mu, wanted):
    """s = 1.5 and N = 1000, so that k = (0.5 * 2^mu / (1 - 1000^-0.5))^(2/3)."""
    assert int(MirostatV1().process(zipf(1.5, 1000), HISTORY, [mu]).isfinite().sum()) == wanted


def test_an_exponent_of_one_is_the_limit():
    below, at, above = (
        int(MirostatV1().process(zipf(s, 1000), HISTORY, [6.0]).isfinite().sum())
        for s in (1 - 1e-6, 1.0, 1 + 1e-6)
    )
    assert below == at == above == int(2**6 / math.log(1000))


def test_a_uniform_row_and_a_single_token_stay():
    x = torch.tensor([[1.0, 1.0, 1.0], [-math.inf, 2.0, -math.inf]])
    assert torch.equal(MirostatV1().process(x, History.of([[0], [0]]), [4.0, 4.0]), x)


def test_the_surprise_is_that_among_the_kept_tokens():
    x = torch.tensor([0.25, 0.75, 0.0]).log()
    assert MirostatV1(3.0, 0.5).advance(6.0, 0, x) == pytest.approx(6.5)

import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit_processors.mirostat_v2 import MirostatV2
from hypothesis import given
from hypothesis import strategies as st


def surprises(logits):
    total = math.log(math.fsum(math.exp(x - max(logits)) for x in logits))
    return [(total - (x - max(logits))) / math.log(2) for x in logits]


def kept(logits, mu):
    bits = surprises(logits)
    return [x if s <= max(mu, min(bits)) else -math.inf for x, s in zip(logits, bits, strict=True)]


def oracle(row: OracleRow, tau, eta):
    """The past as the kit makes it: the row itself, with the chosen token made the largest."""
    mu = 2 * tau
    for token in row.tokens[row.prompt_length :]:
        past = [max(row.logits) + 1 if i == token else x for i, x in enumerate(row.logits)]
        mu -= eta * (surprises(kept(past, mu))[token] - tau)
    return kept(row.logits, mu)


CHECKS = dict(processor_checks(MirostatV2, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


def test_keeps_what_is_not_too_surprising():
    x = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()  # 1, 2, 2.7 and 3.3 bits
    out = MirostatV2().process(x.repeat(4, 1), History.of([[0]] * 4), [3.0, 2.1, 0.5, -math.inf])
    assert out.isfinite().sum(-1).tolist() == [3, 2, 1, 1]


def test_the_target_moves_against_the_error():
    processor, x = MirostatV2(3.0, 0.5), torch.tensor([0.25, 0.75]).log()
    assert processor.init([1, 2]) == 6.0
    assert processor.advance(6.0, 0, x) == pytest.approx(6.5)  # 2 bits are too few


@given(st.floats(0.5, 6), st.floats(0.01, 1), st.integers(0, 999))
def test_the_mean_surprise_is_what_the_steps_say(tau, eta, seed):
    """sum(S - tau) = (mu_0 - mu_n) / eta, whatever the tokens: methods A.11."""
    random = torch.Generator().manual_seed(seed)
    processor, history = MirostatV2(tau, eta), History.of([[0]])
    first = mu = processor.init([0])
    errors = 0.0
    for _ in range(20):
        x = torch.randn(1, 50, generator=random, dtype=torch.float64) * 2
        out = processor.process(x, history, [mu])[0]
        token = int(torch.multinomial(out.softmax(-1), 1, generator=random))
        errors += -math.log2(out.softmax(-1)[token]) - tau
        mu = processor.advance(mu, token, out)
    assert errors == pytest.approx((first - mu) / eta, rel=1e-9, abs=1e-6)

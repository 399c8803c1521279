import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.typical_p import TypicalP
from hypothesis import given
from hypothesis import strategies as st
from transformers import TypicalLogitsWarper

HISTORY = History.of([[0], [1]])


def oracle(row: OracleRow, typical_p, min_tokens_to_keep):
    total = math.fsum(math.exp(x - max(row.logits)) for x in row.logits)
    logp = [x - max(row.logits) - math.log(total) for x in row.logits]
    entropy = -math.fsum(math.exp(x) * x for x in logp if math.exp(x) > 0)
    order = sorted(range(len(logp)), key=lambda i: abs(-logp[i] - entropy))
    prefix, mass = [], 0.0
    for i in order:  # what ties with the last of the prefix stays; with the fewest that stay, nothing
        ties = any(math.isclose(row.logits[i], row.logits[k], abs_tol=1e-12) for k in prefix)
        if mass < typical_p or ties:
            prefix.append(i)
        mass += math.exp(logp[i])
    kept = {*prefix, *order[:min_tokens_to_keep]}
    return [x if i in kept or typical_p == 1 else -math.inf for i, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(TypicalP, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 64).flatmap(lambda v: logits(v, 2)),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.integers(1, 70),
)
def test_same_as_transformers(x, typical_p, least):
    theirs = TypicalLogitsWarper(typical_p, min_tokens_to_keep=least)(None, x)
    assert torch.equal(TypicalP(typical_p, least)(x, HISTORY), theirs)


def test_ties_stay_with_the_last_of_the_prefix_and_not_beyond_the_fewest():
    x = torch.tensor([[0.0, 0.0, 1.0]])
    assert TypicalP(0.5, min_tokens_to_keep=2)(x, History.of([[0]])).isfinite().sum() == 2
    assert TypicalP(0.6)(x, History.of([[0]])).isfinite().sum() == 3


def test_the_most_probable_token_may_be_dropped():
    """It is too little surprising: H = 1.27, and -ln p is 0.69 for it and 1.61 for two of the others."""
    x = torch.tensor([[0.5, 0.2, 0.2, 0.05, 0.05]]).log()
    assert TypicalP(0.3)(x, History.of([[0]])).isfinite().tolist() == [[False, True, True, False, False]]


def test_applied_twice_it_may_keep_less():
    x = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05]]).log()
    once = TypicalP(0.6)(x, History.of([[0]]))
    twice = TypicalP(0.6)(once, History.of([[0]]))
    assert twice.isfinite().sum() < once.isfinite().sum()

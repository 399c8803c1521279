import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.top_p import TopP
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import TopPLogitsWarper

HISTORY = History.of([[0], [1]])
PROBABILITIES = st.floats(0, 1, exclude_max=True)


def oracle(row: OracleRow, top_p, min_tokens_to_keep):
    if top_p == 1:
        return row.logits
    order = sorted(range(len(row.logits)), key=lambda i: row.logits[i])
    weights = [math.exp(row.logits[i] - max(row.logits)) for i in order]
    kept, tail = set(order[-min_tokens_to_keep:]), 0.0
    for i, weight in zip(order, weights, strict=True):
        tail += weight / sum(weights)
        if tail > 1 - top_p:
            kept.add(i)
    return [x if i in kept else -math.inf for i, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(TopP, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 2)), PROBABILITIES, st.integers(1, 70))
def test_same_as_transformers(x, top_p, least):
    theirs = TopPLogitsWarper(top_p, min_tokens_to_keep=least)(None, x)
    assert torch.equal(TopP(top_p, least)(x, HISTORY), theirs)


@given(
    st.integers(0, 999),
    st.integers(257, 4_000),
    st.sampled_from([0.01, 1.0, 2.0, 4.0, 10.0, 1e4]),
    st.booleans(),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.95, 0.999]) | PROBABILITIES,
    st.sampled_from([1, 2, 255, 256, 257, 5_000]),
)
@example(0, 257, 10.0, True, 0.0, 1)
def test_the_short_way_of_large_vocabularies_keeps_the_same_set(seed, vocab_size, scale, tied, top_p, least):
    x = torch.randn(3, vocab_size, generator=torch.Generator().manual_seed(seed)) * scale
    x[1, vocab_size // 2 :] = -torch.inf
    x = x.bfloat16().float() if tied else x
    theirs = TopPLogitsWarper(top_p, min_tokens_to_keep=least)(None, x)
    assert torch.equal(TopP(top_p, least)(x, HISTORY), theirs)


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 1, dtypes=[torch.float64])), PROBABILITIES)
def test_the_set_is_minimal(x, top_p):
    out = TopP(top_p)(x, History.of([[0]]))
    kept = torch.softmax(x, dim=-1)[out.isfinite()]
    assert kept.sum() >= top_p - 1e-12
    assert len(kept) == 1 or kept.sum() - kept.min() <= top_p + 1e-12

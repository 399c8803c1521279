import math

import pytest
import torch
from decodekit import CallContext, History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.forced_eos_token_id import ForcedEosTokenId
from hypothesis import given
from hypothesis import strategies as st
from transformers import ForcedEOSTokenLogitsProcessor

EXAMPLES = [{"forced_eos_token_id": value} for value in (0, [1], [1, 0])]


def oracle(row: OracleRow, forced_eos_token_id):
    if row.max_new_tokens is None or len(row.tokens) - row.prompt_length != row.max_new_tokens - 1:
        return row.logits
    return [0.0 if i in forced_eos_token_id else -math.inf for i in range(len(row.logits))]


CHECKS = dict(processor_checks(ForcedEosTokenId, examples=EXAMPLES, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 64).flatmap(
        lambda v: st.tuples(logits(v, 1), st.lists(st.integers(0, v - 1), min_size=1, max_size=3))
    ),
    st.integers(0, 5),
    st.integers(1, 6),
)
def test_same_as_transformers(inputs, generated, most):
    x, eos = inputs
    history = History.of([[0, 1]], [[0] * generated])
    context = CallContext(vocab_size=x.shape[1], max_new_tokens=most)
    theirs = ForcedEOSTokenLogitsProcessor(2 + most, eos)(history.tokens, x)
    assert torch.equal(ForcedEosTokenId(eos).bind(context)(x, history), theirs)


def test_each_row_counts_its_own_tokens():
    bound = ForcedEosTokenId(2).bind(CallContext(vocab_size=3, max_new_tokens=3))
    out = bound(torch.zeros(2, 3), History.of([[0, 0, 0], [0]], [[1], [1, 1]]))
    assert out.tolist() == [[0, 0, 0], [-math.inf, -math.inf, 0]]


def test_without_a_greatest_length_nothing_is_forced():
    bound = ForcedEosTokenId(2).bind(CallContext(vocab_size=3))
    assert bound(torch.zeros(1, 3), History.of([[0]])).tolist() == [[0, 0, 0]]
    assert bound.describe() == "forced_eos_token_id=(2,)"


@pytest.mark.parametrize("value", [[], -1, [1.5], "a", None])
def test_what_is_no_id_is_refused(value):
    with pytest.raises(ParameterError, match="forced_eos_token_id"):
        ForcedEosTokenId(value)


def test_an_id_beyond_the_vocabulary_is_refused_before_the_call():
    with pytest.raises(ParameterError, match=r"forced_eos_token_id holds the token id 9: .* \[0, 9\)"):
        ForcedEosTokenId([1, 9]).bind(CallContext(vocab_size=9))

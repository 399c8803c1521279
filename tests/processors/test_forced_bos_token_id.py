import math

import pytest
import torch
from decodekit import CallContext, History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.forced_bos_token_id import ForcedBosTokenId
from hypothesis import given
from hypothesis import strategies as st
from transformers import ForcedBOSTokenLogitsProcessor


def oracle(row: OracleRow, forced_bos_token_id):
    if len(row.tokens) != 1:
        return row.logits
    return [0.0 if i == forced_bos_token_id else -math.inf for i in range(len(row.logits))]


CHECKS = dict(
    processor_checks(ForcedBosTokenId, examples=[{"forced_bos_token_id": i} for i in (0, 1)], oracle=oracle)
)


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 2)), st.integers(0, 1), st.integers(0, 2))
def test_same_as_transformers(x, token, generated):
    history = History.of([[0], [1]], [[0] * generated] * 2)
    theirs = ForcedBOSTokenLogitsProcessor(token)(history.tokens, x)
    assert torch.equal(ForcedBosTokenId(token)(x, history), theirs)


def test_a_padded_row_of_one_token_has_one_token():
    out = ForcedBosTokenId(2)(torch.zeros(2, 3), History.of([[0, 0], [0]]))
    assert out.tolist() == [[0, 0, 0], [-math.inf, -math.inf, 0]]


def test_a_token_that_was_forbidden_is_forced_all_the_same():
    out = ForcedBosTokenId(1)(torch.tensor([[1.0, -math.inf]]), History.of([[0]]))
    assert out.tolist() == [[-math.inf, 0]]


@pytest.mark.parametrize("value", [-1, 1.5, [1], "a", None])
def test_what_is_no_id_is_refused(value):
    with pytest.raises(ParameterError, match="forced_bos_token_id"):
        ForcedBosTokenId(value)


def test_an_id_beyond_the_vocabulary_is_refused_before_the_call():
    with pytest.raises(ParameterError, match=r"forced_bos_token_id holds the token id 9: .* \[0, 9\)"):
        ForcedBosTokenId(9).bind(CallContext(vocab_size=9))

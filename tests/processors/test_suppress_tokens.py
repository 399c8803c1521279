import math

import pytest
import torch
from decodekit import History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.suppress_tokens import SuppressTokens
from hypothesis import given
from hypothesis import strategies as st
from transformers import SuppressTokensLogitsProcessor

EXAMPLES = [{"suppress_tokens": value} for value in ([], [0], [1, 1], [0, 3, 70])]


def oracle(row: OracleRow, suppress_tokens):
    return [-math.inf if i in suppress_tokens else x for i, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(SuppressTokens, examples=EXAMPLES, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(st.integers(2, 64).flatmap(lambda v: logits(v, 2)), st.lists(st.integers(0, 80)))
def test_same_as_transformers(x, tokens):
    ours = SuppressTokens(tokens)(x, History.of([[0], [1]]))
    assert torch.equal(ours, SuppressTokensLogitsProcessor(tokens)(None, x))


@pytest.mark.parametrize("value", [[-1], [1.5], "a", None])
def test_what_is_no_list_of_ids_is_refused(value):
    with pytest.raises(ParameterError, match="suppress_tokens"):
        SuppressTokens(value)

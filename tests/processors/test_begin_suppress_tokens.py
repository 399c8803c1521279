import math

import pytest
import torch
from decodekit import History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.begin_suppress_tokens import BeginSuppressTokens
from hypothesis import given
from hypothesis import strategies as st
from transformers import SuppressTokensAtBeginLogitsProcessor

EXAMPLES = [
    {"begin_suppress_tokens": tokens, "forced_bos_token_id": bos}
    for tokens, bos in (([], None), ([0], None), ([1, 3, 70], 0), ([0, 1], 5))
]


def oracle(row: OracleRow, begin_suppress_tokens, forced_bos_token_id):
    waits = forced_bos_token_id is not None and row.prompt_length == 1
    begins = len(row.tokens) == row.prompt_length + (1 if waits else 0)
    return [-math.inf if begins and i in begin_suppress_tokens else x for i, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(BeginSuppressTokens, examples=EXAMPLES, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 64).flatmap(lambda v: logits(v, 1)),
    st.lists(st.integers(0, 80)),
    st.integers(1, 3),
    st.integers(0, 3),
    st.none() | st.integers(0, 9),
)
def test_same_as_transformers(x, tokens, length, generated, bos):
    history = History.of([[0] * length], [[1] * generated])
    begin = length if length > 1 or bos is None else length + 1  # as in their _get_logits_processor
    theirs = SuppressTokensAtBeginLogitsProcessor(tokens, begin)(history.tokens, x)
    assert torch.equal(BeginSuppressTokens(tokens, bos)(x, history), theirs)


def test_each_row_begins_on_its_own():
    history = History.of([[0, 0], [0, 0, 0], [0]], [[], [1], []])
    out = BeginSuppressTokens([2])(torch.zeros(3, 3), history)
    assert out[:, 2].tolist() == [-math.inf, 0, -math.inf]


@pytest.mark.parametrize("value", [[-1], [1.5], "a", None])
def test_what_is_no_list_of_ids_is_refused(value):
    with pytest.raises(ParameterError, match="begin_suppress_tokens"):
        BeginSuppressTokens(value)

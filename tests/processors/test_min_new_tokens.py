import math

import pytest
import torch
from decodekit import CallContext, History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.min_new_tokens import MinNewTokens
from hypothesis import given
from hypothesis import strategies as st
from transformers import MinNewTokensLengthLogitsProcessor


def oracle(row: OracleRow, min_new_tokens):
    closed = len(row.tokens) - row.prompt_length < min_new_tokens
    return [-math.inf if closed and i in row.eos_token_ids else x for i, x in enumerate(row.logits)]


def accepts(prompt, tokens, min_new_tokens):
    return len(tokens) > min_new_tokens


CHECKS = dict(processor_checks(MinNewTokens, oracle=oracle, accepts=accepts))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 64).flatmap(
        lambda v: st.tuples(logits(v, 1), st.lists(st.integers(0, v - 1), min_size=1, max_size=3))
    ),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_same_as_transformers(inputs, generated, least):
    x, eos = inputs
    history = History.of([[0, 1]], [[0] * generated])
    ours = MinNewTokens(least).bind(CallContext(vocab_size=x.shape[1], eos_token_ids=tuple(eos)))
    theirs = MinNewTokensLengthLogitsProcessor(2, least, eos)
    assert torch.equal(ours(x, history), theirs(history.tokens, x))


def test_each_row_counts_its_own_tokens():
    history = History.of([[0, 0, 0, 0], [0], [0]], [[1], [1], [1, 1]])
    bound = MinNewTokens(2).bind(CallContext(vocab_size=3, eos_token_ids=(2,)))
    assert bound(torch.zeros(3, 3), history)[:, 2].tolist() == [-math.inf, -math.inf, 0]


def test_an_eos_id_without_a_logit_is_ignored():
    bound = MinNewTokens(2).bind(CallContext(vocab_size=3, eos_token_ids=(7, 1)))
    assert bound(torch.zeros(1, 3), History.of([[0]])).tolist() == [[0, -math.inf, 0]]


def test_binding_leaves_the_unbound_one_as_it_was():
    processor = MinNewTokens(2)
    bound = processor.bind(CallContext(vocab_size=3, eos_token_ids=(1,)))
    assert processor == MinNewTokens(2) != bound
    assert bound.describe() == processor.describe() == "min_new_tokens=2"

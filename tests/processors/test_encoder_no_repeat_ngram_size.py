import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.encoder_no_repeat_ngram_size import EncoderNoRepeatNgramSize
from hypothesis import given
from hypothesis import strategies as st
from transformers import EncoderNoRepeatNGramLogitsProcessor


def oracle(row: OracleRow, encoder_no_repeat_ngram_size):
    n, prompt = encoder_no_repeat_ngram_size, row.tokens[: row.prompt_length]
    ngrams = {tuple(prompt[i : i + n]) for i in range(len(prompt) - n + 1)} if n else set()
    begun = row.tokens[len(row.tokens) - n + 1 :]
    return [-math.inf if (*begun, i) in ngrams else x for i, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(EncoderNoRepeatNgramSize, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 6).flatmap(
        lambda v: st.tuples(
            logits(v, 2),
            st.lists(st.tuples(*[st.integers(0, v - 1)] * 2), min_size=5, max_size=12),
        )
    ),
    st.integers(1, 5),
    st.integers(1, 12),
)
def test_same_as_transformers_without_padding(inputs, n, length):
    x, columns = inputs
    tokens = torch.tensor(columns).T
    prompt = tokens[:, :length]
    history = History.of(prompt.tolist(), tokens[:, length:].tolist())
    theirs = EncoderNoRepeatNGramLogitsProcessor(n, prompt)(tokens, x)
    assert torch.equal(EncoderNoRepeatNgramSize(n)(x, history), theirs)


def test_what_was_generated_may_come_again():
    history = History.of([[1, 2]], [[3, 4, 3]])
    assert EncoderNoRepeatNgramSize(2)(torch.zeros(1, 6), history).isfinite().all()
    again = History.of([[1, 2]], [[3, 4, 1]])
    assert EncoderNoRepeatNgramSize(2)(torch.zeros(1, 6), again).isneginf().tolist()[0].index(True) == 2

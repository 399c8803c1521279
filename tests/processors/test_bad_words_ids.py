import math

import pytest
import torch
from decodekit import CallContext, History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.bad_words_ids import BadWordsIds
from hypothesis import given
from hypothesis import strategies as st
from transformers import NoBadWordsLogitsProcessor

EXAMPLES = [{"bad_words_ids": value} for value in ([[0]], [[1, 0], [0, 1]], [[0, 0], [1, 1, 1], [1]])]


def oracle(row: OracleRow, bad_words_ids):
    out = list(row.logits)
    for word in bad_words_ids:
        before = list(word[:-1])
        begun = row.tokens[len(row.tokens) - len(before) :] == before and len(before) <= len(row.tokens)
        if begun and not (len(word) == 1 and word[0] in row.eos_token_ids):
            out[word[-1]] = -math.inf
    return out


def accepts(prompt, tokens, bad_words_ids):
    text = [*prompt, *tokens]
    words = [[*word] for word in bad_words_ids if [*word] != tokens[-1:]]  # EOS alone is no bad word
    ends = range(len(prompt) + 1, len(text) + 1)
    return not any(text[:end][-len(word) :] == word for end in ends for word in words)


CHECKS = dict(processor_checks(BadWordsIds, examples=EXAMPLES, oracle=oracle, accepts=accepts))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 4).flatmap(
        lambda v: st.tuples(
            logits(v, 2),
            st.lists(st.tuples(*[st.integers(0, v - 1)] * 2), min_size=1, max_size=6),
            st.lists(st.lists(st.integers(0, v - 1), min_size=1, max_size=4), max_size=8),
            st.lists(st.integers(0, v - 1), max_size=2),
        )
    )
)
def test_same_as_transformers(inputs):
    x, columns, words, eos = inputs
    words += [[0, 1]]  # without a word that is no EOS id transformers fails
    tokens = torch.tensor(columns).T
    theirs = NoBadWordsLogitsProcessor(words, eos)(tokens, x)
    context = CallContext(vocab_size=x.shape[1], eos_token_ids=tuple(eos))
    assert torch.equal(BadWordsIds(words).bind(context)(x, History.of(tokens.tolist())), theirs)


def test_only_ends_as_words_forbid_nothing():
    bound = BadWordsIds([[1]]).bind(CallContext(vocab_size=3, eos_token_ids=(1,)))
    assert bound(torch.zeros(1, 3), History.of([[1]])).tolist() == [[0, 0, 0]]
    assert bound.describe() == "bad_words_ids=((1,),)"


def test_a_word_is_forbidden_along_a_row_only_where_it_ends():
    words = BadWordsIds([[1, 2, 3]])
    history = History.of([[1, 2], [2], [1, 2, 2]])
    assert words(torch.zeros(3, 4), history)[:, 3].tolist() == [-math.inf, 0, 0]


@pytest.mark.parametrize("value", [[], [[]], [[-1]], [[1.5]], [["a"]], None])
def test_what_is_no_word_is_refused_when_it_is_made(value):
    with pytest.raises(ParameterError, match="bad_words_ids"):
        BadWordsIds(value)


def test_an_id_beyond_the_vocabulary_is_refused_before_the_call():
    with pytest.raises(ParameterError, match=r"bad_words_ids holds the token id 9: .* \[0, 9\)"):
        BadWordsIds([[1, 9]]).bind(CallContext(vocab_size=9))

import math

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.no_repeat_ngram_size import NoRepeatNgramSize
from hypothesis import given
from hypothesis import strategies as st
from transformers import NoRepeatNGramLogitsProcessor


def oracle(row: OracleRow, no_repeat_ngram_size):
    n, tokens = no_repeat_ngram_size, row.tokens
    ngrams = {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)} if n else set()
    return [
        -math.inf if (*tokens[len(tokens) - n + 1 :], i) in ngrams else x for i, x in enumerate(row.logits)
    ]


def accepts(prompt, tokens, no_repeat_ngram_size):
    n, text = no_repeat_ngram_size, [*prompt, *tokens]
    ngrams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)] if n else []
    return all(ngrams[i] not in ngrams[:i] for i in range(len(ngrams)) if i + n > len(prompt))


CHECKS = dict(processor_checks(NoRepeatNgramSize, oracle=oracle, accepts=accepts))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 6).flatmap(
        lambda v: st.tuples(
            logits(v, 2), st.lists(st.tuples(*[st.integers(0, v)] * 2), min_size=1, max_size=12)
        )
    ),
    st.integers(1, 5),
)
def test_same_as_transformers_without_padding(inputs, n):
    x, columns = inputs
    tokens = torch.tensor(columns).T
    theirs = NoRepeatNGramLogitsProcessor(n)(tokens, x)
    assert torch.equal(NoRepeatNgramSize(n)(x, History.of(tokens.tolist())), theirs)


def test_padding_is_no_ngram_as_it_is_in_transformers():
    history = History.of([[5, 5, 5, 5], [0]], [[], []])
    assert history.tokens[1].tolist() == [0, 0, 0, 0]
    x = torch.zeros(2, 6)
    assert NoRepeatNgramSize(2)(x, history)[1].tolist() == [0] * 6
    assert not NoRepeatNGramLogitsProcessor(2)(history.tokens, x)[1, 0].isfinite()


def test_prompt_and_generated_tokens_both_count():
    history = History.of([[1, 2, 3]], [[4, 1, 2]])
    out = NoRepeatNgramSize(3)(torch.zeros(1, 6), history)
    assert out.isfinite().tolist() == [[True, True, True, False, True, True]]

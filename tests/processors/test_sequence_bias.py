import pytest
import torch
from decodekit import CallContext, History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.sequence_bias import SequenceBias
from hypothesis import given
from hypothesis import strategies as st
from transformers import SequenceBiasLogitsProcessor

EXAMPLES = [
    {"sequence_bias": value}
    for value in (
        [[[0], 2.5]],
        [[[1, 0], -float("inf")], [[0, 1], 3.0]],
        [[[0, 0], 1.0], [[1, 0], 2.0], [[0], -1.0], [[1, 1, 1, 0], 4.0]],
    )
]


def oracle(row: OracleRow, sequence_bias):
    out = list(row.logits)
    for ids, bias in sequence_bias:
        before = list(ids[:-1])
        if row.tokens[len(row.tokens) - len(before) :] == before and len(before) <= len(row.tokens):
            out[ids[-1]] += bias
    return out


CHECKS = dict(processor_checks(SequenceBias, examples=EXAMPLES, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


def sequences(vocab_size):
    ids = st.lists(st.integers(0, vocab_size - 1), min_size=1, max_size=4).map(tuple)
    return st.dictionaries(ids, st.floats(-9, 9, width=32) | st.just(-float("inf")), min_size=1, max_size=8)


@given(
    st.integers(2, 4).flatmap(
        lambda v: st.tuples(
            logits(v, 2),
            st.lists(st.tuples(*[st.integers(0, v - 1)] * 2), min_size=1, max_size=6),
            sequences(v),
        )
    )
)
def test_same_as_transformers(inputs):
    x, columns, biases = inputs
    tokens = torch.tensor(columns).T
    theirs = SequenceBiasLogitsProcessor(biases)(tokens, x)
    ours = SequenceBias(biases)(x, History.of(tokens.tolist()))
    assert torch.equal(ours.isneginf(), theirs.isneginf())
    torch.testing.assert_close(ours, theirs)


def test_a_mapping_and_a_list_are_the_same():
    assert SequenceBias({(1, 2): 3}) == SequenceBias([[[1, 2], 3.0]])


def test_padding_is_not_what_stands_before():
    history = History.of([[5, 5, 5], [1]])
    assert history.tokens[1].tolist() == [0, 0, 1]
    assert not SequenceBias([[[0, 1, 2], 9.0]])(torch.zeros(2, 6), history).any()
    assert SequenceBias([[[1, 2], 9.0]])(torch.zeros(2, 6), history)[1, 2] == 9.0


@pytest.mark.parametrize(
    "value",
    [
        [],
        [[[], 1.0]],
        [[[1], float("inf")]],
        [[[1], float("nan")]],
        [[[-1], 1.0]],
        [[[1.5], 1.0]],
        [[1, "a"]],
        "x",
        None,
    ],
)
def test_what_is_no_bias_is_refused_when_it_is_made(value):
    with pytest.raises(ParameterError, match="sequence_bias"):
        SequenceBias(value)


def test_an_id_beyond_the_vocabulary_is_refused_before_the_call():
    with pytest.raises(ParameterError, match=r"sequence_bias holds the token id 9: .* \[0, 9\)"):
        SequenceBias([[[1, 9], 1.0]]).bind(CallContext(vocab_size=9))

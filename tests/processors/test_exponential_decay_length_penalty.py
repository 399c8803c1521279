import math

import pytest
import torch
from decodekit import CallContext, History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.exponential_decay_length_penalty import ExponentialDecayLengthPenalty
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    ExponentialDecayLengthPenalty as TheirPenalty,  # not among transformers' public names
)

EXAMPLES = [{"exponential_decay_length_penalty": value} for value in ((0, 1.2), (2, 3.0), (1, 0.5), (0, 1.0))]


def oracle(row: OracleRow, exponential_decay_length_penalty):
    start, factor = exponential_decay_length_penalty
    growth = factor ** max(len(row.tokens) - row.prompt_length - start, 0) - 1
    return [
        x + abs(x) * growth if i in row.eos_token_ids and math.isfinite(x) else x
        for i, x in enumerate(row.logits)
    ]


CHECKS = dict(processor_checks(ExponentialDecayLengthPenalty, examples=EXAMPLES, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 64).flatmap(
        lambda v: st.tuples(logits(v, 1), st.lists(st.integers(0, v - 1), min_size=1, max_size=3))
    ),
    st.integers(0, 5),
    st.integers(0, 5),
    st.floats(0.5, 3),
)
def test_same_as_transformers(inputs, generated, start, factor):
    x, eos = inputs
    history = History.of([[0, 1]], [[0] * generated])
    context = CallContext(vocab_size=x.shape[1], eos_token_ids=tuple(eos))
    ours = ExponentialDecayLengthPenalty((start, factor)).bind(context)(x, history)
    theirs = TheirPenalty((start, factor), eos, 2)(history.tokens, x)
    torch.testing.assert_close(ours, theirs)


def test_each_row_counts_its_own_tokens():
    bound = ExponentialDecayLengthPenalty((1, 2.0)).bind(CallContext(vocab_size=2, eos_token_ids=(1,)))
    out = bound(torch.tensor([[1.0, -3.0]] * 3), History.of([[0, 0], [0, 0, 0], [0]], [[0], [0, 0], [0] * 3]))
    assert out.tolist() == [[1.0, -3.0], [1.0, 0.0], [1.0, 6.0]]


@pytest.mark.parametrize("x", [0.0, 2.0, -2.0])
def test_after_thousands_of_tokens_it_is_still_a_number(x):
    """f^n is beyond float64 there."""
    bound = ExponentialDecayLengthPenalty((0, 1.5)).bind(CallContext(vocab_size=2, eos_token_ids=(1,)))
    out = bound(torch.tensor([[1.0, x]]), History.of([[0]], [[0] * 4_000]))
    assert out.isfinite().all()
    assert (out[0, 1] > 1e38) == (x != 0)


@pytest.mark.parametrize(
    "value", [5, (5,), (-1, 1.1), (5, 0.0), (5, float("nan")), (5, float("inf")), "a", None]
)
def test_what_is_no_start_and_factor_is_refused(value):
    with pytest.raises(ParameterError, match="exponential_decay_length_penalty"):
        ExponentialDecayLengthPenalty(value)

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import histories, logits
from decodekit_processors.presence_penalty import PresencePenalty
from hypothesis import given
from hypothesis import strategies as st


def oracle(row: OracleRow, presence_penalty):
    generated = row.tokens[row.prompt_length :]
    return [x - presence_penalty * (i in generated) for i, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(PresencePenalty, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


def test_only_generated_tokens_count_and_once():
    history = History.of([[0, 1], [2]], [[1, 1, 1], []])
    out = PresencePenalty(0.5)(torch.zeros(2, 3), history)
    assert out.tolist() == [[0.0, -0.5, 0.0], [0.0, 0.0, 0.0]]


@given(
    st.integers(2, 64).flatmap(
        lambda v: st.tuples(logits(v, 2, dtypes=[torch.float64]), histories(v, 2, beyond=4))
    ),
    st.floats(-1, 1),
    st.floats(-1, 1),
)
def test_two_of_them_are_their_sum(inputs, a, b):
    x, history = inputs
    twice = PresencePenalty(a)(PresencePenalty(b)(x, history), history)
    assert torch.allclose(twice, PresencePenalty(a + b)(x, history), atol=1e-9)

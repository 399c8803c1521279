import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit_processors.encoder_repetition_penalty import EncoderRepetitionPenalty
from hypothesis import given
from hypothesis import strategies as st
from transformers import EncoderRepetitionPenaltyLogitsProcessor


def oracle(row: OracleRow, encoder_repetition_penalty):
    prompt = set(row.tokens[: row.prompt_length])
    rewarded = [
        x / encoder_repetition_penalty if x < 0 else x * encoder_repetition_penalty for x in row.logits
    ]
    return [y if i in prompt else x for i, (x, y) in enumerate(zip(row.logits, rewarded, strict=True))]


CHECKS = dict(processor_checks(EncoderRepetitionPenalty, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 64).flatmap(
        lambda v: st.tuples(
            logits(v, 2), st.lists(st.tuples(*[st.integers(0, v - 1)] * 2), min_size=1, max_size=8)
        )
    ),
    st.floats(0.1, 10),
)
def test_same_as_transformers_without_padding(inputs, penalty):
    x, columns = inputs
    prompts = torch.tensor(columns).T
    ours = EncoderRepetitionPenalty(penalty)(x, History.of(prompts.tolist(), [[0], [1]]))
    theirs = EncoderRepetitionPenaltyLogitsProcessor(penalty, prompts)(None, x)
    torch.testing.assert_close(ours, theirs)


def test_only_the_prompt_counts():
    out = EncoderRepetitionPenalty(2.0)(torch.tensor([[2.0, -1.0, 1.0]]), History.of([[0, 1, 0]], [[2]]))
    assert out.tolist() == [[4.0, -0.5, 1.0]]

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import histories, logits
from decodekit_processors.repetition_penalty import RepetitionPenalty
from hypothesis import given
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

PENALTIES = st.floats(0.1, 10)


def oracle(row: OracleRow, repetition_penalty):
    seen = set(row.tokens)
    penalised = [x * repetition_penalty if x < 0 else x / repetition_penalty for x in row.logits]
    return [y if i in seen else x for i, (x, y) in enumerate(zip(row.logits, penalised, strict=True))]


CHECKS = dict(processor_checks(RepetitionPenalty, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(st.integers(2, 64).flatmap(lambda v: st.tuples(logits(v, 3), histories(v, 3, beyond=4))), PENALTIES)
def test_same_as_transformers(inputs, penalty):
    x, history = inputs
    theirs = RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=history.pads)
    assert torch.equal(RepetitionPenalty(penalty)(x, history), theirs(history.tokens, x))


def test_five_times_is_once():
    x = torch.tensor([[2.0, -1.0, 1.0]])
    once, often = (RepetitionPenalty(2.0)(x, History.of([tokens])) for tokens in ([0, 1], [0, 1, 0, 1, 0]))
    assert once.tolist() == often.tolist() == [[1.0, -2.0, 1.0]]


def test_a_logit_of_zero_stays():
    assert RepetitionPenalty(2.0)(torch.zeros(1, 3), History.of([[0]])).tolist() == [[0.0, 0.0, 0.0]]

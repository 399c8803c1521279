"""Another tokenizer by shared tokens: q has no mass on any other, and is what was drawn from."""

import decodekit as dk
import pytest
import torch
from decodekit.testing import check_drafter
from decodekit.testing.models import tiny_llama
from decodekit_strategies.drafters.vocab_intersection import VocabIntersection

INPUTS = {
    "input_ids": torch.tensor([[7, 8, 6, 7], [0, 0, 5, 5]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]),
}
SHARED = {0, 1, 2, 3, 4, 5, 6}
"""All of the target's tokens but the pairs ab and cd."""


@pytest.fixture
def models():
    return tiny_llama(9, seed=1, eos_token_id=1), tiny_llama(8, seed=2, eos_token_id=6)


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "seed": 3, "temperature": 1.5}])
def test_any_assistant_changes_no_token(pairs, singles, models, sampling):
    target, assistant = models
    weights = {name: value.clone() for name, value in assistant.state_dict().items()}
    arguments = {**INPUTS, **sampling, "max_new_tokens": 14, "return_dict_in_generate": True}
    plain = dk.generate(target, **arguments)
    spec = {"model": assistant, "tokenizer": singles, "confidence_threshold": 0.0}
    fast = dk.generate(
        target,
        **arguments,
        strategy="assisted",
        drafter=("vocab_intersection", spec),
        tokenizer=pairs,
        adaptive=False,
    )
    assert torch.equal(fast.sequences, plain.sequences)
    assert fast.stats.drafted > fast.stats.accepted
    assert all(torch.equal(value, weights[name]) for name, value in assistant.state_dict().items())


def test_transformers_arguments_choose_it_where_tokens_are_drawn(pairs, singles, models):
    target, assistant = models
    both = {"assistant_model": assistant, "assistant_tokenizer": singles, "tokenizer": pairs}
    names = []
    for sampling in ({}, {"do_sample": True, "seed": 3}):
        output = dk.generate(
            target, **INPUTS, **both, **sampling, max_new_tokens=4, return_dict_in_generate=True
        )
        names.append(output.stats.details["drafter"])
    assert names == ["universal", "vocab_intersection"]


def test_q_is_the_assistants_law_over_shared_tokens(pairs, singles, models):
    target, assistant = models
    seen = []

    class Spy(VocabIntersection):
        __slots__ = ()

        def draft(self, batch, lengths, pick):
            draft = super().draft(batch, lengths, pick)
            seen.append((batch.rows[0].since(0), draft))
            return draft

    dk.generate(
        target,
        input_ids=torch.tensor([[2, 3, 6]]),
        attention_mask=torch.ones(1, 3).long(),
        strategy="assisted",
        drafter=Spy(assistant, singles, 0.0),
        tokenizer=pairs,
        do_sample=True,
        top_k=0,
        seed=2,
        max_new_tokens=3,
    )
    text, draft = seen[0]
    assert text == [2, 3, 6]
    logits = assistant(torch.tensor([[4, 3, 0]])).logits[0, -1]  # "ab " in the assistant's letters
    ours = {0: 7, 1: 6, 2: 4, 3: 3, 4: 2, 5: 1, 6: 0}
    expected = torch.full((9,), -torch.inf, dtype=torch.float64)
    for target_id, own in ours.items():
        expected[target_id] = logits[own]
    torch.testing.assert_close(draft.q[0].probs[0], expected.softmax(-1))
    assert {token for block in draft.tokens for token in block} <= SHARED


def test_the_kit(pairs, singles, models, profile):
    target, assistant = models
    check_drafter(VocabIntersection(assistant, singles, 0.1), target=target, tokenizer=pairs, profile=profile)

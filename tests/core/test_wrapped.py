"""transformers' processors and prefix functions see the batch as transformers shows it."""

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

VOCAB = 32
MODEL = tiny_llama(VOCAB)
DRAFT = tiny_llama(VOCAB)
with torch.no_grad(), torch.random.fork_rng():
    torch.manual_seed(1)
    for weight in DRAFT.parameters():
        weight.add_(0.1 * weight.std() * torch.randn_like(weight))
RAGGED = {
    "input_ids": torch.tensor([[0, 0, 0, 0, 5, 6], [3, 4, 3, 4, 3, 4]]),
    "attention_mask": torch.tensor([[0, 0, 0, 0, 1, 1], [1] * 6]),
}
ARGUMENTS = {"max_new_tokens": 24, "pad_token_id": 0, "eos_token_id": None}


def by_width(input_ids, scores):
    """Favours a token that depends on the number of columns, as a minimum length does."""
    return scores + 50.0 * (torch.arange(VOCAB) == input_ids.shape[1] % VOCAB)


PROCESSORS = {
    "repetition": RepetitionPenaltyLogitsProcessor(1.6),
    "ngrams": NoRepeatNGramLogitsProcessor(2),
    "width": by_width,
}


def next_ids(batch_id, tokens):
    return [(len(tokens) + batch_id + step) % VOCAB for step in range(9)]


@pytest.mark.parametrize(
    "arguments",
    [
        *({"logits_processor": [processor]} for processor in PROCESSORS.values()),
        {"prefix_allowed_tokens_fn": next_ids},
    ],
    ids=[*PROCESSORS, "prefix"],
)
def test_drafts_of_unequal_luck_do_not_show(arguments):
    plain = dk.generate(MODEL, **RAGGED, **ARGUMENTS, **arguments)
    drafting = {"assistant_model": DRAFT, "num_assistant_tokens": 4, "assistant_confidence_threshold": 0.0}
    assisted = dk.generate(
        MODEL, **RAGGED, **ARGUMENTS, **arguments, **drafting, return_dict_in_generate=True
    )
    assert assisted.stats.accepted > 0
    assert torch.equal(assisted.sequences, plain)


@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS)
def test_padding_of_all_rows_is_shown(processor):
    inputs = {name: value[:1] for name, value in RAGGED.items()} | {"logits_processor": [processor]}
    assert torch.equal(dk.generate(MODEL, **inputs, **ARGUMENTS), MODEL.generate(**inputs, **ARGUMENTS))


@pytest.mark.parametrize("strategy", [{}, {"strategy": "greedy"}, {"num_beams": 3}], ids=str)
def test_a_prefix_function_is_told_the_prompts_number(strategy, monkeypatch):
    if "strategy" in strategy:
        monkeypatch.setattr(MODEL.generation_config, "num_beams", 2)
    told = set()

    def spy(batch_id, tokens):
        told.add((batch_id, int(tokens[-1]) if len(tokens) == 6 else int(tokens[5])))
        return range(VOCAB)

    dk.generate(MODEL, **RAGGED, **ARGUMENTS, **strategy, prefix_allowed_tokens_fn=spy)
    assert told == {(0, 6), (1, 4)}

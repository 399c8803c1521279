"""Going on from ``past_key_values``, as transformers does and where it can't."""

import copy

import decodekit as dk
import pytest
import torch
from transformers import DynamicCache, StaticCache

from tests.parity.architectures import inputs_of, model_of
from tests.parity.differential import both

NAMES = ["qwen3", "gpt2", "gemma3"]


def turn(generate, model, ids, cache, new=5, **arguments):
    return generate(
        model, input_ids=ids, past_key_values=cache, max_new_tokens=new, eos_token_id=None, **arguments
    )


def theirs(model, **arguments):
    return model.generate(**arguments)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("whole", [True, False], ids=["whole text", "new tokens"])
def test_two_turns_are_those_of_transformers(name, whole):
    model, ids = model_of(name), inputs_of(name)["input_ids"][:1]
    found = []
    for generate in (theirs, dk.generate):
        cache = DynamicCache(config=model.config)
        first = turn(generate, model, ids, cache)
        assert cache.get_seq_length() == first.shape[1] - 1  # the caller's object goes on
        text = torch.cat([first, torch.tensor([[7, 8, 9]])], dim=1)
        mask = torch.ones_like(text)
        given = text if whole else text[:, cache.get_seq_length() :]
        second = turn(generate, model, given, cache, attention_mask=mask)
        found.append((first, second))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_cache_of_a_forward_pass():
    model, ids = model_of("qwen3"), inputs_of("qwen3")["input_ids"][:1]
    with torch.no_grad():
        cache = model(ids[:, :4], past_key_values=DynamicCache(config=model.config)).past_key_values
    one, other = both(model, input_ids=ids, past_key_values=cache, max_new_tokens=6, do_sample=True)
    assert torch.equal(one, other)


def test_a_search_goes_on_too_and_leaves_the_given_cache_as_it_was():
    model, ids = model_of("qwen3"), inputs_of("qwen3")["input_ids"][:1]
    with torch.no_grad():
        cache = model(ids[:, :4], past_key_values=DynamicCache(config=model.config)).past_key_values
    before = copy.deepcopy(cache)
    found = dk.generate(model, ids, past_key_values=cache, max_new_tokens=4, num_beams=3)
    assert torch.equal(found, dk.generate(model, ids, max_new_tokens=4, num_beams=3))
    for one, other in zip(before.layers, cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)


def test_a_static_cache_of_the_caller():
    model, ids = model_of("qwen3"), inputs_of("qwen3")["input_ids"]
    mask = inputs_of("qwen3")["attention_mask"]
    cache = StaticCache(config=model.config, max_cache_len=32)
    ours = dk.generate(model, ids, attention_mask=mask, past_key_values=cache, max_new_tokens=5)
    assert torch.equal(ours, dk.generate(model, ids, attention_mask=mask, max_new_tokens=5))
    assert int(cache.get_seq_length()) == ours.shape[1] - 1


@pytest.mark.parametrize("drafts", [{}, {"prompt_lookup_num_tokens": 3}], ids=["plain", "drafts"])
def test_rows_of_different_length_and_end_go_on_together(drafts):
    """The first turn's rows end at different steps: there are gaps in the second turn's mask."""
    model, inputs = model_of("qwen3"), inputs_of("qwen3")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]

    def stop(tokens, scores):
        return torch.tensor([tokens.shape[1] >= 8, tokens.shape[1] >= 11])

    first = dk.generate(
        model,
        ids,
        attention_mask=mask,
        max_new_tokens=9,
        eos_token_id=None,
        stopping_criteria=[stop],
        return_dict_in_generate=True,
    )
    new = torch.tensor([[7, 8, 9], [10, 11, 12]])
    text = torch.cat([first.sequences, new], dim=1)
    shown = torch.ones_like(text)
    shown[:, :6] = mask
    shown[0, 8:11] = 0
    second = dk.generate(
        model,
        text,
        attention_mask=shown,
        past_key_values=first.past_key_values,
        max_new_tokens=6,
        eos_token_id=None,
        **drafts,
    )
    for row in range(2):
        alone = dk.generate(model, text[row, shown[row].bool()][None], max_new_tokens=6, eos_token_id=None)
        assert torch.equal(second[row, -6:], alone[0, -6:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "holds 4 tokens.*6 columns.*at least one must be new"),
        ({"attention_mask": torch.ones(1, 4)}, "holds 4 tokens"),
        ({"attention_mask": torch.ones(1, 20)}, "holds 4 tokens"),
    ],
    ids=["too short", "nothing new", "unclear"],
)
def test_what_does_not_fit_the_cache_is_named(arguments, message):
    model, ids = model_of("qwen3"), inputs_of("qwen3")["input_ids"][:1]
    with torch.no_grad():
        cache = model(ids[:, :4], past_key_values=DynamicCache(config=model.config)).past_key_values
    given = ids[:, :4] if not arguments else ids
    message = message if arguments else "holds 4 tokens.*at least one must be new"
    with pytest.raises(dk.ParameterError, match=message):
        dk.generate(model, given, past_key_values=cache, max_new_tokens=2, **arguments)


@pytest.mark.parametrize("size", [1, 2, 5, 50])
@pytest.mark.parametrize("name", NAMES)
def test_prompts_in_pieces(name, size):
    one, other = both(model_of(name), **inputs_of(name), prefill_chunk_size=size, max_new_tokens=5)
    assert torch.equal(one, other)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_cache_may_be_longer_than_needed(cache):
    arguments = {**inputs_of("gpt2"), "cache_implementation": cache, "max_cache_len": 64, "max_new_tokens": 5}
    assert torch.equal(*both(model_of("gpt2"), **arguments))

"""The same tokens as ``model.generate`` for every kind of model, and every field of the output."""

import copy

import decodekit as dk
import pytest
import torch

from tests.parity.architectures import EVERY, PAIR_MODELS, TEXT_MODELS, inputs_of, model_of
from tests.parity.differential import both

SETTINGS = {
    "greedy": {},
    "sample": {"do_sample": True, "num_return_sequences": 2},
    "beam": {"num_beams": 3, "num_return_sequences": 2},
}
OWN_GENERATE = {"blip2", "whisper"}  # these wrap transformers' generate, and return what they like


def asked(name):
    """Every field, where the model hands them on."""
    return {} if name in OWN_GENERATE else {"return_dict_in_generate": True, "output_scores": True}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", EVERY)
def test_the_same_tokens(name, setting):
    arguments = {**inputs_of(name), **SETTINGS[setting], **asked(name), "max_new_tokens": 7}
    theirs, ours = both(model_of(name), **arguments)
    if name in OWN_GENERATE:
        assert torch.equal(theirs, ours)
        return
    assert torch.equal(theirs.sequences, ours.sequences)
    for one, other in zip(theirs.scores, ours.scores, strict=True):
        live = ~((other == -torch.inf).all(1) | (other == 0).any(1))  # rows that have not ended
        torch.testing.assert_close(other[live], one[live], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("search", [{}, {"num_beams": 2}], ids=str)
def test_every_field_of_a_model_that_cuts_them_into_rows(search):
    model = copy.deepcopy(model_of("whisper"))
    model.set_attn_implementation("eager")
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_attentions": True}
    theirs, ours = both(model, **inputs_of("whisper"), **search, **asked, max_new_tokens=5)
    assert type(theirs) is type(ours)
    assert theirs.keys() - ours.keys() == ({"past_key_values"} if search else set())
    assert torch.equal(theirs.sequences, ours.sequences)
    for one, other in zip(theirs.cross_attentions, ours.cross_attentions, strict=True):
        torch.testing.assert_close(list(one), list(other))


@pytest.mark.parametrize("name", ["bart", "bloom", "gemma3", "jamba", "llava", "t5"])
@pytest.mark.parametrize("cache", [{"use_cache": False}, {"cache_implementation": "static"}], ids=str)
def test_the_same_tokens_with_other_caches(name, cache):
    theirs, ours = both(model_of(name), **inputs_of(name), **cache, max_new_tokens=6)
    assert torch.equal(theirs, ours)


def eager(name):
    model = copy.deepcopy(model_of(name))
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("search", [False, True], ids=["greedy", "beam"])
@pytest.mark.parametrize("name", ["bart", "gemma3", "gpt2", "llava", "t5"])
def test_the_same_attentions_and_hidden_states(name, search):
    beams = {"num_beams": 2, "num_return_sequences": 2} if search else {}
    inputs = inputs_of(name)
    arguments = {**inputs, **beams, **asked(name), "max_new_tokens": 4, "eos_token_id": None}
    theirs, ours = both(eager(name), **arguments, output_attentions=True, output_hidden_states=True)
    prefix = "decoder_" if name in PAIR_MODELS else ""
    fields = [f"{prefix}attentions", f"{prefix}hidden_states", *["cross_attentions"] * bool(prefix)]
    for field in fields:
        steps = zip(getattr(theirs, field), getattr(ours, field), strict=True)
        for step, (expected, got) in enumerate(steps):
            for one, other in zip(expected, got, strict=True):
                assert one.shape == other.shape, (field, step)
                keep = torch.ones(one.shape, dtype=torch.bool)
                if not step and not prefix:  # padding says something there, and nothing here
                    rows = inputs["attention_mask"].bool().repeat_interleave(2 if search else 1, 0)
                    keep &= rows[:, :, None] if field == "hidden_states" else rows[:, None, :, None]
                torch.testing.assert_close(other[keep], one[keep], atol=1e-5, rtol=1e-4)
    for field in ("encoder_attentions", "encoder_hidden_states") if prefix else ():
        for one, other in zip(getattr(theirs, field), getattr(ours, field), strict=True):
            torch.testing.assert_close(other, one)


@pytest.mark.parametrize("name", [*TEXT_MODELS, "bart", "llava", "t5"])
def test_the_same_cache_in_the_output(name):
    inputs = {key: value[:1] for key, value in inputs_of(name).items()}
    theirs, ours = both(model_of(name), **inputs, max_new_tokens=5, return_dict_in_generate=True)
    one, other = theirs.past_key_values, ours.past_key_values
    assert type(one) is type(other)
    for parts in zip(
        *(getattr(cache, "self_attention_cache", cache).layers for cache in (one, other)), strict=True
    ):
        keys = [getattr(layer, "keys", None) for layer in parts]
        if keys[0] is not None:
            torch.testing.assert_close(keys[1], keys[0], atol=1e-5, rtol=1e-4)


def test_the_cache_of_rows_that_ended_at_different_times_has_each_token_in_its_column():
    model, inputs = model_of("qwen3"), inputs_of("qwen3")
    ends = [6, 4, 9]
    ids = torch.cat([inputs["input_ids"], inputs["input_ids"][:1]])
    mask = torch.cat([inputs["attention_mask"], inputs["attention_mask"][:1]])

    def stop(tokens, scores):
        return torch.tensor([tokens.shape[1] >= 6 + end for end in ends])

    out = dk.generate(
        model,
        ids,
        attention_mask=mask,
        max_new_tokens=12,
        eos_token_id=None,
        stopping_criteria=[stop],
        return_dict_in_generate=True,
    )
    assert out.past_key_values.get_seq_length() == out.sequences.shape[1] - 1
    for row, end in enumerate(ends):
        columns = [*mask[row].nonzero()[:, 0].tolist(), *range(6, 6 + end - 1)]
        alone = model(out.sequences[row, columns][None], use_cache=True).past_key_values
        for layer, expected in zip(out.past_key_values.layers, alone.layers, strict=True):
            torch.testing.assert_close(layer.keys[row, :, columns], expected.keys[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "opt"])
@pytest.mark.parametrize("with_ids", [False, True])
def test_prompts_as_embeddings(name, with_ids):
    model, inputs = model_of(name), inputs_of(name)
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    arguments = {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"], "max_new_tokens": 6}
    arguments |= {"input_ids": inputs["input_ids"]} if with_ids else {}
    for setting in SETTINGS.values():
        theirs, ours = both(model, **arguments, **setting)
        assert torch.equal(theirs, ours)


def test_positions_of_the_caller():
    model, inputs = model_of("gpt2"), inputs_of("gpt2")
    positions = torch.arange(6).repeat(2, 1) + 7
    theirs, ours = both(model, **inputs, position_ids=positions, max_new_tokens=6)
    assert torch.equal(theirs, ours)
    assert not torch.equal(ours, dk.generate(model, **inputs, max_new_tokens=6))


def test_a_prompt_padded_on_the_right_is_what_its_mask_says():
    model, inputs = model_of("qwen3"), inputs_of("qwen3")
    left = dk.generate(model, **inputs, max_new_tokens=6)
    ids = inputs["input_ids"].clone()
    ids[1] = torch.cat([ids[1, 2:], torch.tensor([3, 3])])
    right = dk.generate(model, ids, attention_mask=inputs["attention_mask"].flip(1), max_new_tokens=6)
    assert torch.equal(left[:, 6:], right[:, 6:])


@pytest.mark.parametrize("name", ["qwen2_vl"])
def test_models_that_remember_positions_forget_them(name):
    model = model_of(name)
    inner = model.model
    inner.rope_deltas = kept = torch.tensor([[5]])
    dk.generate(model, **inputs_of(name), max_new_tokens=2)
    assert inner.rope_deltas is kept


def test_a_model_with_a_loop_of_its_own_is_refused():
    class Own(type(model_of("gpt2"))):
        def _sample(self):
            """A loop of its own."""

    own = Own(model_of("gpt2").config)
    with pytest.raises(dk.UnsupportedArgumentError, match="Own decodes in a way of its own"):
        dk.generate(own, torch.tensor([[5]]), max_new_tokens=2)

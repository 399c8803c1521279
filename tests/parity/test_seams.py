"""Where parts meet: calls whose pieces are each tested elsewhere."""

import threading

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama, tiny_mistral
from transformers import DynamicCache, GenerationMixin, MaxLengthCriteria, StaticCache

from tests.parity.architectures import inputs_of, model_of

MODEL = model_of("qwen3")
IDS = inputs_of("qwen3")["input_ids"][:1]


def test_guidance_is_applied_once_inside_theirs():
    negative = {"negative_prompt_ids": torch.tensor([[9, 8]])}
    for strategy, more in (("greedy", {}), ("beam", {"num_beams": 3})):
        arguments = {"guidance_scale": 1.5, "max_new_tokens": 6, **negative, **more}
        inside = MODEL.generate(IDS, custom_generate=dk.as_custom_generate(strategy), **arguments)
        assert torch.equal(inside, dk.generate(MODEL, IDS, strategy=strategy, **arguments))


@pytest.mark.parametrize("new", [1, 2])
def test_positions_of_the_new_tokens_count_on(new):
    arguments = {"attention_mask": torch.ones(1, 6), "max_new_tokens": 5}
    found = []
    for more in ({}, {"position_ids": torch.arange(6 - new, 6)[None]}):
        with torch.no_grad():
            cache = MODEL(
                IDS[:, : 6 - new], past_key_values=DynamicCache(config=MODEL.config)
            ).past_key_values
        ids = IDS[:, 6 - new :]
        found.append(dk.generate(MODEL, ids, past_key_values=cache, **arguments, **more))
    assert torch.equal(*found)
    with pytest.raises(dk.ParameterError, match="position_ids has shape"):
        dk.generate(MODEL, IDS, position_ids=torch.arange(3)[None], max_new_tokens=2)


def test_a_block_without_a_chain_leaves_the_callers():
    arguments = {"repetition_penalty": 1000.0, "max_new_tokens": 8}
    expected = MODEL.generate(IDS, **arguments)
    with dk.drop_in(MODEL, processors=None):
        assert torch.equal(MODEL.generate(IDS, **arguments), expected)


def test_a_criterion_of_length_is_the_calls_length():
    lengths = {"stopping_criteria": [MaxLengthCriteria(20)], "max_new_tokens": 3, "eos_token_id": None}
    for more in ({}, {"cache_implementation": "static"}, {"num_beams": 2}):
        assert dk.generate(MODEL, IDS, **lengths, **more).shape[1] == 20
    short = dk.generate(MODEL, IDS, stopping_criteria=[MaxLengthCriteria(2)], max_new_tokens=5)
    assert short.shape[1] == IDS.shape[1] + 1  # as in transformers


def test_windows_of_a_fixed_size_are_counted_where_rows_ended_apart():
    model, ids = tiny_mistral(32, window=4), torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])

    def stop(tokens, scores):
        return torch.tensor([tokens.shape[1] >= 8, tokens.shape[1] >= 12])

    arguments = {"stopping_criteria": [stop], "max_new_tokens": 9, "eos_token_id": None}
    static = dk.generate(model, ids, **arguments, cache_implementation="static", return_dict_in_generate=True)
    dynamic = dk.generate(model, ids, **arguments, return_dict_in_generate=True)
    counts = [int(out.past_key_values.layers[0].get_seq_length()) for out in (static, dynamic)]
    assert counts[0] == counts[1] == 11


def test_an_empty_cache_is_a_fresh_start():
    cache = DynamicCache(config=MODEL.config)
    for width in (2, 9):
        with pytest.raises(dk.ParameterError, match="attention_mask has shape"):
            dk.generate(MODEL, IDS, past_key_values=cache, attention_mask=torch.ones(1, width))


def test_a_static_cache_that_is_too_small_is_refused():
    cache = StaticCache(config=MODEL.config, max_cache_len=6)
    with pytest.raises(dk.ParameterError, match=r"room for 6 tokens.*need 11"):
        dk.generate(MODEL, IDS, past_key_values=cache, max_new_tokens=5)


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("name", ["qwen3", "bart"])
def test_nothing_new_has_no_layers_to_show(name, beams):
    asked = {"return_dict_in_generate": True, "output_hidden_states": True, "max_new_tokens": 0}
    out = dk.generate(model_of(name), **inputs_of(name), num_beams=beams, **asked)
    plain = dk.generate(model_of(name), **inputs_of(name), num_beams=beams, **{**asked, "max_new_tokens": 1})
    assert type(out) is type(plain)


def test_other_threads_do_not_meet_a_model_inside_its_own_generate():
    class Own(type(tiny_llama(32))):
        def generate(self, *args, **kwargs):
            thread = threading.Thread(
                target=lambda: found.append(GenerationMixin.generate(self, ids, **short))
            )
            thread.start()
            thread.join()
            return super().generate(*args, **kwargs)

    ids, short, found = torch.tensor([[5, 6, 7]]), {"max_new_tokens": 3, "num_beams": 1}, []
    own = Own(tiny_llama(32).config)
    dk.generate(own, ids, strategy=("beam", {"num_beams": 2}), max_new_tokens=3)
    assert torch.equal(found[0], GenerationMixin.generate(own, ids, **short))


def test_labels_of_a_training_batch_are_left_alone():
    assert torch.equal(
        dk.generate(MODEL, IDS, labels=IDS, max_new_tokens=4), MODEL.generate(IDS, max_new_tokens=4)
    )


def test_the_first_argument_of_a_model_that_wraps_generate_is_its_own():
    model, features = model_of("whisper"), inputs_of("whisper")["input_features"]
    assert torch.equal(
        dk.generate(model, features, max_new_tokens=4), model.generate(features, max_new_tokens=4)
    )

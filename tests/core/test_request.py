"""The inputs of a call: what they may be, and what is said of those that can't be."""

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama
from transformers import DynamicCache, GenerationConfig, StaticCache

from tests.parity.architectures import inputs_of, model_of

MODEL = tiny_llama(32)
IDS = torch.tensor([[0, 0, 7, 8], [9, 10, 11, 12]])
MASK = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
PLACES = torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]])
SOURCE = inputs_of("bart")
START = torch.tensor([[4, 5], [4, 6]])


def tuples(tensor):
    return tuple(map(tuple, tensor.tolist()))


def call(**arguments):
    given = {"input_ids": IDS, "attention_mask": MASK, "max_new_tokens": 4, **arguments}
    return dk.generate(MODEL, **given).tolist()


def translate(**arguments):
    return dk.generate(model_of("bart"), **{**SOURCE, "max_new_tokens": 4, **arguments}).tolist()


@pytest.mark.parametrize(
    "kind", [torch.Tensor.tolist, tuples, torch.Tensor.numpy], ids=["lists", "tuples", "numpy"]
)
def test_inputs_may_be_lists_and_arrays(kind):
    given = {"input_ids": IDS, "attention_mask": MASK, "position_ids": PLACES}
    assert call(**{name: kind(value) for name, value in given.items()}) == call(position_ids=PLACES)
    own = {"decoder_input_ids": START, "decoder_attention_mask": torch.ones_like(START)}
    same = {name: kind(value) for name, value in {**SOURCE, **own}.items()}
    assert translate(**same) == translate(**own)


def test_the_first_argument_may_be_an_array():
    assert dk.generate(MODEL, IDS.numpy(), attention_mask=MASK, max_new_tokens=4).tolist() == call()


REFUSED = {
    "ragged": ({"input_ids": [[5], [6, 7]]}, "input_ids is no tensor.*padding=True"),
    "texts": ({"input_ids": ["a", "b"]}, "input_ids is no tensor"),
    "true and false": ({"input_ids": MASK.bool()}, "must hold token ids"),
    "a mask in words": ({"attention_mask": "all"}, "attention_mask is a str"),
    "an additive mask": ({"attention_mask": (1 - MASK) * -1e9}, r"from -1000000000.0 to .*0.0: it must be 1"),
    "places of no batch": ({"position_ids": torch.arange(4)}, r"position_ids has shape \[4\]"),
    "half places": ({"position_ids": PLACES / 2}, "position_ids .*dtype torch.float32"),
}
REFUSED_OF_PAIRS = {
    "another number of rows": (
        {"decoder_input_ids": START[:1]},
        "decoder_input_ids has 1 rows and input_ids 2",
    ),
    "no batch": ({"decoder_input_ids": [4, 5]}, r"decoder_input_ids has shape \[2\]"),
    "a mask for one": (
        {"decoder_input_ids": START, "decoder_attention_mask": [[1, 1]]},
        r"decoder_attention_mask has shape \[1, 2\]",
    ),
    "an additive mask": ({"attention_mask": torch.full((2, 6), -1e9)}, "attention_mask holds values"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_an_input_is_named(name):
    arguments, words = REFUSED[name]
    with pytest.raises(dk.ParameterError, match=words):
        call(**arguments)


@pytest.mark.parametrize("name", REFUSED_OF_PAIRS)
def test_what_can_not_be_an_input_of_a_pair_is_named(name):
    arguments, words = REFUSED_OF_PAIRS[name]
    with pytest.raises(dk.ParameterError, match=words):
        translate(**arguments)


def nothing():
    config = GenerationConfig()
    config.max_new_tokens = 0  # the constructor refuses it
    return config


@pytest.mark.parametrize(
    ("own", "arguments", "count"),
    [
        (False, {"max_new_tokens": 0}, 0),
        (False, {"generation_config": nothing()}, 0),
        (False, {"generation_config": nothing(), "num_beams": 2}, 0),
        (False, {"generation_config": nothing(), "max_new_tokens": 2}, 2),
        (True, {}, 0),
        (True, {"generation_config": GenerationConfig(max_new_tokens=2)}, 2),
        (True, {"max_new_tokens": 2}, 2),
    ],
)
def test_no_new_token_may_be_asked_for_anywhere(monkeypatch, own, arguments, count):
    monkeypatch.setattr(MODEL.generation_config, "max_new_tokens", 0 if own else None)
    given = arguments.get("generation_config")
    before = [config.to_dict() for config in (MODEL.generation_config, given) if config is not None]
    out = dk.generate(MODEL, IDS, attention_mask=MASK, eos_token_id=[], **arguments)
    assert out.shape == (2, 4 + count)
    assert before == [config.to_dict() for config in (MODEL.generation_config, given) if config is not None]


def filled(kind, prompts):
    cache = {"dynamic": DynamicCache, "static": lambda: StaticCache(config=MODEL.config, max_cache_len=20)}[
        kind
    ]()
    dk.generate(MODEL, prompts, past_key_values=cache, max_new_tokens=1)
    return cache


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_cache_goes_on_with_the_rows_that_it_holds(kind):
    text = torch.cat([IDS[1:], IDS[1:].flip(1), IDS[1:]])
    arguments = {"max_new_tokens": 4, "attention_mask": torch.ones_like(text)}
    ours = dk.generate(MODEL, text, past_key_values=filled(kind, text[:, :2]), **arguments)
    assert torch.equal(ours, dk.generate(MODEL, text, **arguments))
    for count in (1, 2, 4):
        cache = filled(kind, text[:1, :2].repeat(count, 1))
        with pytest.raises(
            dk.ParameterError, match=f"past_key_values holds {count} rows, and there are 3 prompts"
        ):
            dk.generate(MODEL, text, past_key_values=cache, **arguments)

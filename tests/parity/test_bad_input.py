"""What can't work is refused by name, before the first forward pass; and what transformers does then."""

import copy

import decodekit as dk
import pytest
import torch
from transformers.generation import GenerationMode

from tests.parity.architectures import inputs_of, model_of
from tests.parity.refusals import (
    ACCEPTS,
    IDS,
    LEFT_OUT,
    MODEL,
    Case,
    assert_accepted,
    assert_refused,
    changed,
    limited,
    of,
)

EMPTY = torch.zeros(1, 0, dtype=torch.long)
SAMPLE = {"do_sample": True}
NOT_YET = dk.UnsupportedArgumentError


def with_decoding_in_its_config():
    model = copy.deepcopy(MODEL)
    model.config.temperature = 0.5
    return model


class Plain(type(MODEL)):
    """A model that can't start from embeddings."""

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return super().prepare_inputs_for_generation(input_ids, **kwargs)


INPUTS = {
    "decoding in the model's config": Case(
        model=with_decoding_in_its_config(), raises=ValueError, match="modify `model.generation_config`"
    ),
    **{
        f"{name} of load": Case(arguments={name: "auto"}, match=f"{name} is for loading, by decodekit.load")
        for name in ("quant", "dtype", "device_map", "load_in_8bit")
    },
    "typo": Case(arguments={"max_new_token": 4}, match="max_new_token.*Did you mean 'max_new_tokens'"),
    "two inputs": Case(arguments={"inputs": IDS}, raises=ValueError, match="alongside input_ids"),
    "two sources": Case(
        **of("bart", inputs_embeds=torch.zeros(2, 6, 16)), raises=ValueError, match="Please pick one"
    ),
    "embeddings for a model without": Case(
        model=Plain(MODEL.config),
        arguments={"inputs_embeds": torch.zeros(2, 4, 32)},
        raises=ValueError,
        match="Plain doesn't have its forwarding implemented",
    ),
    "flat embeddings": Case(
        arguments={"inputs_embeds": torch.zeros(2, 32)},
        match=r"inputs_embeds has shape \[2, 32\]",
        theirs=IndexError,
    ),
    "nothing": Case(
        model=changed(MODEL, bos_token_id=None),
        arguments={"input_ids": LEFT_OUT},
        raises=ValueError,
        match="`bos_token_id` has to be defined",
    ),
    "an empty prompt": Case(
        model=changed(MODEL, bos_token_id=None),
        arguments={"input_ids": EMPTY},
        match="a prompt is empty and the model has no bos_token_id",
        theirs=Exception,
    ),
    "a text": Case(
        arguments={"input_ids": LEFT_OUT, "inputs": "x"}, match="inputs is a str", theirs=AttributeError
    ),
    "floats": Case(
        arguments={"input_ids": torch.zeros(1, 3)}, match="must hold token ids", theirs=RuntimeError
    ),
    "one row": Case(
        arguments={"input_ids": torch.tensor([5, 6])}, match="add a dimension", theirs=IndexError
    ),
    "unknown ids": Case(
        arguments={"input_ids": torch.tensor([[99]])},
        match=r"\[0, 32\), the model's vocabulary",
        theirs=IndexError,
    ),
    "a mask of 3 dimensions": Case(
        arguments={"attention_mask": torch.ones(2, 1, 4)}, match=r"attention_mask has shape \[2, 1, 4\]"
    ),
    "a mask of 1 dimension": Case(
        arguments={"attention_mask": torch.ones(4)},
        match=r"attention_mask has shape \[4\]",
        theirs=IndexError,
    ),
    "a mask of another length": Case(
        arguments={"attention_mask": torch.ones(2, 3)}, match="attention_mask has shape", theirs=Exception
    ),
    "pad ids without a mask": Case(
        arguments={"input_ids": torch.tensor([[5, 6, 7], [5, 6, 0]])},
        match="attention_mask is missing and input_ids holds pad_token_id=0",
        theirs="A decoder-only architecture is being used, but right-padding",
    ),
    "no beginning": Case(
        model=changed(model_of("bart"), decoder_start_token_id=None, bos_token_id=None),
        arguments=inputs_of("bart"),
        raises=ValueError,
        match="`decoder_start_token_id` or `bos_token_id`",
    ),
    "three beginnings of two": Case(
        **of("bart", decoder_start_token_id=[4, 4, 4]),
        raises=ValueError,
        match="`decoder_start_token_id` expected to have length 2",
    ),
    "pixels and what comes of them": Case(
        **of("llava", mm_encoder_outputs={"image": torch.zeros(2, 4, 32)}),
        raises=ValueError,
        match="You cannot pass both: raw pixels",
    ),
    "no room": Case(
        arguments={"max_new_tokens": None, "max_length": 4},
        raises=ValueError,
        match="`max_length` is set to 4",
    ),
    "only greedy": Case(
        model=limited(GenerationMode.GREEDY_SEARCH),
        arguments=SAMPLE,
        raises=NOT_YET,
        match="ask for sample, and Limited can only do greedy_search",
    ),
}
OBJECTS = {
    "a processor that is none": Case(
        arguments={"logits_processor": [5]}, match="logits_processor holds 5", theirs=AttributeError
    ),
    "a processor alone": Case(
        arguments={"logits_processor": len}, match="logits_processor=.*must be a list", theirs=TypeError
    ),
    "a processor that wants more": Case(
        arguments={"logits_processor": [lambda input_ids, scores, more: scores]},
        match=r"callable with \(input_ids, scores\)",
        theirs=TypeError,
    ),
    "a processor of other scores": Case(
        arguments={"logits_processor": [lambda input_ids, scores: scores[:, :3]]},
        match=r"gave shape \[2, 3\] for scores of shape \[2, 32\]",
        theirs=ACCEPTS,
        late=True,
    ),
    "a processor of nothing": Case(
        arguments={"logits_processor": [lambda input_ids, scores: None]},
        match="gave a NoneType",
        theirs=TypeError,
        late=True,
    ),
    "a criterion that is none": Case(
        arguments={"stopping_criteria": [5]}, match="stopping_criteria holds 5", theirs=TypeError
    ),
    "a criterion alone": Case(
        arguments={"stopping_criteria": len}, match="stopping_criteria=.*must be a list", theirs=TypeError
    ),
    "a criterion of other rows": Case(
        arguments={"stopping_criteria": [lambda input_ids, scores: torch.tensor([True] * 5)]},
        match="gave tensor.* for 2 rows",
        theirs=RuntimeError,
        late=True,
    ),
    "a prefix that is no function": Case(
        arguments={"prefix_allowed_tokens_fn": 5}, match="prefix_allowed_tokens_fn=5", theirs=TypeError
    ),
    "a prefix of no token": Case(
        arguments={"prefix_allowed_tokens_fn": lambda batch_id, tokens: []},
        match="prefix_allowed_tokens_fn gave no token for batch_id=0 after",
        late=True,
    ),
    "a prefix of None": Case(
        arguments={"prefix_allowed_tokens_fn": lambda batch_id, tokens: None},
        match="prefix_allowed_tokens_fn gave None",
        theirs=TypeError,
        late=True,
    ),
    "a prefix of unknown tokens": Case(
        arguments={"prefix_allowed_tokens_fn": lambda batch_id, tokens: [99]},
        match=r"gave \[99\] for batch_id=0.*\[0, 32\)",
        theirs=IndexError,
        late=True,
    ),
    "a prefix that counts from behind": Case(
        arguments={"prefix_allowed_tokens_fn": lambda batch_id, tokens: [-1]},
        match=r"gave \[-1\]",
        theirs=ACCEPTS,
        late=True,
    ),
    "a streamer that is none": Case(
        arguments={"streamer": 5}, match="streamer=5 has no put and no end", theirs=AttributeError
    ),
    "a configuration that is none": Case(
        arguments={"generation_config": {"num_beams": 2}},
        match="generation_config=.* must be a transformers",
        theirs=AttributeError,
    ),
}
OURS = {
    "strategy": ({"strategy": "gredy"}, dk.UnknownNameError, "Did you mean 'greedy'"),
    "no strategy": ({"strategy": 7}, dk.ParameterError, "7"),
    "processor": ({"processors": ["topp"]}, dk.UnknownNameError, "Did you mean 'top_p'"),
    "parameter": (
        {"processors": [("top_p", {"p": 0.5})]},
        dk.ParameterError,
        "'top_p' has no parameter 'p'",
    ),
    "prefix beside a chain": (
        {"prefix_allowed_tokens_fn": lambda batch_id, tokens: [5], "processors": ["top_k"]},
        dk.ParameterError,
        "prefix_allowed_tokens_fn=.* would have no effect",
    ),
    "no effect": (
        {"strategy": "sample", "num_beams": 2},
        dk.ParameterError,
        "num_beams=2 would have no effect",
    ),
    "greedy sampling": ({"strategy": "greedy", "do_sample": True}, dk.ParameterError, "contradict"),
    "seed": ({"seed": "x"}, dk.ParameterError, "seed='x'"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_that_do_not_fit(name):
    assert_refused(INPUTS[name])


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_that_are_not_what_they_should_be(name):
    assert_refused(OBJECTS[name])


@pytest.mark.parametrize("name", OURS)
def test_what_only_decodekit_takes(name):
    arguments, raises, match = OURS[name]
    error = Exception if arguments.get("strategy") or arguments.get("processors") else ValueError
    assert_refused(Case(arguments=arguments, raises=raises, match=match, theirs=error))


# What transformers warns of and does; so does decodekit


WARNED = {
    "more least than most": ({"max_new_tokens": None, "max_length": 6, "min_length": 9}, "Unfeasible length"),
    "more new than most": ({"min_new_tokens": 9}, "Unfeasible length constraints: `min_new_tokens` (9)"),
    "no length": ({"max_new_tokens": None}, "Using the model-agnostic default `max_length` (=24)"),
    "two lengths": ({"max_length": 50}, "Both `max_new_tokens` (=3) and `max_length`(=50)"),
    "two least lengths": ({"min_length": 2, "min_new_tokens": 1}, "Both `min_new_tokens` (=1)"),
    "an end that never comes": ({"eos_token_id": -1}, "`eos_token_id` should consist of positive integers"),
}


@pytest.mark.parametrize("name", WARNED)
def test_what_is_warned_of_is_warned_of_here_too(name):
    arguments, words = WARNED[name]
    assert_accepted(Case(arguments=arguments, theirs=words))


@pytest.mark.parametrize(
    "arguments",
    [{"max_new_token": None}, {"input_ids": LEFT_OUT}, {"eos_token_id": []}, {"eos_token_id": 99}],
    ids=["misspelt None", "no ids", "no EOS", "EOS beyond the vocabulary"],
)
def test_what_both_take(arguments):
    assert_accepted(Case(arguments=arguments, theirs=ACCEPTS))


def test_parts_of_a_pair_may_be_named_with_a_prefix():
    mask = torch.ones(2, 1, dtype=torch.long)
    assert_accepted(Case(**of("bart", decoder_attention_mask=mask), theirs=ACCEPTS))


def test_a_beginning_for_each_row():
    assert_accepted(Case(**of("bart", decoder_start_token_id=[4, 5]), theirs=ACCEPTS))

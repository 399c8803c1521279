"""Parts that do not work together are refused by name, before the first forward pass; and those that do."""

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama, tiny_mamba
from transformers import DynamicCache

from tests.parity.architectures import model_of
from tests.parity.refusals import (
    ACCEPTS,
    IDS,
    MODEL,
    ONE,
    VOCAB,
    Case,
    Quiet,
    assert_accepted,
    assert_refused,
    of,
)

SAMPLE = {"do_sample": True}
LOOKUP = {"prompt_lookup_num_tokens": 2, "input_ids": ONE}
DRAFT = {"assistant_model": MODEL, "input_ids": ONE}
NOT_YET = dk.UnsupportedArgumentError
PARTS = {
    "drafts for a state": Case(
        model=tiny_mamba(VOCAB),
        arguments=LOOKUP,
        raises=dk.CapabilityError,
        match="'assisted' needs .*MambaForCausalLM",
    ),
    "a draft model with other tokens": Case(
        arguments={**DRAFT, "assistant_model": tiny_llama(40, dtype=torch.float32)},
        match="a vocabulary of 40 tokens",
    ),
    "a tokenizer of a draft model that has the same": Case(
        arguments={**DRAFT, "assistant_tokenizer": object()}, raises=ValueError, match="assistant_tokenizer"
    ),
    "a draft model without encoder": Case(
        model=model_of("bart"),
        arguments={"input_ids": ONE, "assistant_model": model_of("gpt2")},
        match="GPT2LMHeadModel, which has no encoder",
    ),
    "a mixture of draft and model": Case(
        arguments={**LOOKUP, "assistant_ensemble_weight": 0.5}, match="would have no effect"
    ),
    "another kind of drafts": Case(
        arguments={**DRAFT, "speculation_type": "dflash"},
        raises=NOT_YET,
        match="speculation_type='dflash'",
        theirs=AttributeError,
    ),
    "no drafts": Case(
        arguments={**LOOKUP, "prompt_lookup_num_tokens": 0}, match="prompt_lookup_num_tokens=0 is not allowed"
    ),
    "no n-gram": Case(
        arguments={**LOOKUP, "max_matching_ngram_size": 0},
        match="max_matching_ngram_size=0 is not allowed",
        theirs=ACCEPTS,
    ),
    "a draft model's name": Case(
        arguments={**DRAFT, "assistant_model": "gpt2"},
        match="assistant_model is a str",
        theirs=AttributeError,
    ),
    "own layers": Case(
        arguments={"use_mtp": True}, match="'multi_token' needs a model with multi-token heads"
    ),
    "stop strings without tokenizer": Case(
        arguments={"stop_strings": ["x"]}, match="stop_strings=.*needs tokenizer"
    ),
    "stop strings and what is no tokenizer": Case(
        arguments={"stop_strings": ["x"], "tokenizer": 5},
        match="tokenizer is a int, which has no decode",
        theirs=AttributeError,
    ),
    "healing without tokenizer": Case(
        arguments={"token_healing": True}, match="token_healing=True needs tokenizer"
    ),
    "little memory": Case(
        arguments={"num_beams": 2, "low_memory": True}, raises=NOT_YET, match="low_memory=True"
    ),
    "what is no cache": Case(
        arguments={"num_beams": 2, "past_key_values": Quiet()},
        match="past_key_values is a Quiet",
        theirs=AttributeError,
    ),
    "a tuple for a cache": Case(arguments={"past_key_values": ()}, match="past_key_values is a tuple"),
    "two caches": Case(
        arguments={"past_key_values": DynamicCache(), "cache_implementation": "static"},
        match="past_key_values and cache_implementation='static' contradict",
    ),
    "a cache and none": Case(
        arguments={"past_key_values": DynamicCache(), "use_cache": False},
        match="past_key_values and use_cache=False contradict",
        theirs=ACCEPTS,
    ),
    "a quantized cache for an encoder": Case(
        **of("bart", cache_implementation="quantized"), raises=(ValueError, ImportError), match="quantized"
    ),
    "pieces without cache": Case(
        arguments={"prefill_chunk_size": 2, "use_cache": False}, match="prefill_chunk_size needs a cache"
    ),
    "pieces of nothing": Case(
        arguments={"prefill_chunk_size": 0}, match="prefill_chunk_size=0 is not allowed", theirs=RuntimeError
    ),
    "pieces for a state": Case(
        model=tiny_mamba(VOCAB),
        arguments={"prefill_chunk_size": 2},
        raises=dk.CapabilityError,
        match="prefill_chunk_size=2 .*4 tokens in pieces.*MambaForCausalLM keeps a state",
    ),
    "pieces for a state beside padding": Case(
        model=tiny_mamba(VOCAB),
        arguments={"prefill_chunk_size": 2, "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])},
        raises=dk.CapabilityError,
        match="prefill_chunk_size=2 .*MambaForCausalLM keeps a state",
    ),
    "attentions that are never computed": Case(
        arguments={"output_attentions": True, "return_dict_in_generate": True},
        raises=dk.CapabilityError,
        match="output_attentions=True needs attentions.*eager",
        theirs="`sdpa` attention does not support `output_attentions=True`",
    ),
    "processes without any": Case(
        arguments={"synced_gpus": True}, match="torch.distributed is not initialized"
    ),
    "paged": Case(
        arguments={"cache_implementation": "paged", "streamer": Quiet()},
        raises=NOT_YET,
        match="cache_implementation='paged'",
        theirs=RuntimeError,
    ),
    "negative prompt without guidance": Case(
        arguments={"negative_prompt_ids": IDS},
        match="negative_prompt_ids would have no effect",
        theirs=ACCEPTS,
    ),
    "negative prompt of another batch": Case(
        arguments={"negative_prompt_ids": torch.zeros(5, 2), "guidance_scale": 1.5},
        match=r"negative_prompt_ids has shape \[5, 2\]",
        theirs=RuntimeError,
    ),
}
MOVED = {
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "dola": {"dola_layers": "high"},
    "diverse_beam": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
    "constrained_beam": {"num_beams": 2, "force_words_ids": [[5]]},
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_do_not_work_together(name):
    assert_refused(PARTS[name])


@pytest.mark.parametrize("name", MOVED)
def test_modes_that_transformers_has_given_away(name):
    if name in dk.strategies():
        pytest.skip("installed: it works")
    assert_refused(Case(arguments=MOVED[name], raises=NOT_YET, match=f"the strategy '{name}'"))


# What transformers refuses and decodekit does


DONE = {
    "beams and a streamer": {"num_beams": 2, "streamer": Quiet()},
    "drafts and several sequences": {**LOOKUP, "num_return_sequences": 2, **SAMPLE},
    "drafts for several prompts": {"assistant_model": MODEL},
    "drafts without cache": {**DRAFT, "use_cache": False},
    "drafts and a static cache": {**DRAFT, "cache_implementation": "static"},
    "no new token": {"max_new_tokens": 0},
}


@pytest.mark.parametrize("name", DONE)
def test_what_transformers_refuses_and_decodekit_does(name):
    assert_accepted(Case(arguments=DONE[name]))

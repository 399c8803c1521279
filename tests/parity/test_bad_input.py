"""What can't work is refused by name, before the first forward pass."""

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama
from transformers import DynamicCache

VOCAB = 32
MODEL = tiny_llama(VOCAB)
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


REFUSED = {
    "groups": (
        {"num_beams": 4, "num_beam_groups": 2},
        dk.UnsupportedArgumentError,
        "group_beam_search.*num_beams=4.*'diverse_beam'",
    ),
    "own layers": ({"use_mtp": True}, dk.UnsupportedArgumentError, "use_mtp=True"),
    "prefix": (
        {"prefix_allowed_tokens_fn": lambda batch_id, tokens: []},
        dk.ParameterError,
        "prefix_allowed_tokens_fn gave no token for batch_id=0 after",
    ),
    "prefix beside a chain": (
        {"prefix_allowed_tokens_fn": len, "processors": ["top_k"]},
        dk.ParameterError,
        "prefix_allowed_tokens_fn=.* would have no effect",
    ),
    "negative": ({"negative_prompt_ids": IDS}, dk.ParameterError, "negative_prompt_ids would have no effect"),
    "negative shape": (
        {"negative_prompt_ids": torch.zeros(5, 2), "guidance_scale": 1.5},
        dk.ParameterError,
        r"negative_prompt_ids has shape \[5, 2\]",
    ),
    "watermark": (
        {"watermarking_config": {"greenlist_ratio": 0.0}},
        dk.ParameterError,
        r"greenlist_ratio=0.0 is not allowed: .* \(0, 1\)",
    ),
    "bad words": ({"bad_words_ids": [[3, -1]]}, dk.ParameterError, "bad_words_ids holds the token id -1"),
    "attentions": (
        {"output_attentions": True, "return_dict_in_generate": True},
        dk.CapabilityError,
        "output_attentions=True needs attentions.*eager",
    ),
    "cache": (
        {"cache_implementation": "paged"},
        dk.UnsupportedArgumentError,
        "cache_implementation='paged'.*'quantized'",
    ),
    "embeds": (
        {"inputs_embeds": torch.zeros(2, 32)},
        dk.ParameterError,
        r"inputs_embeds has shape \[2, 32\]",
    ),
    "healing": ({"token_healing": True}, dk.ParameterError, "token_healing=True needs tokenizer"),
    "processes": ({"synced_gpus": True}, dk.ParameterError, "torch.distributed is not initialized"),
    "tuple": ({"past_key_values": ()}, dk.ParameterError, "past_key_values is a tuple"),
    "two caches": (
        {"past_key_values": DynamicCache(), "cache_implementation": "static"},
        dk.ParameterError,
        "past_key_values and cache_implementation='static' contradict",
    ),
    "chunks": ({"prefill_chunk_size": 2, "use_cache": False}, dk.ParameterError, "needs a cache"),
    "typo": ({"max_new_token": 4}, dk.ParameterError, "max_new_token.*Did you mean 'max_new_tokens'"),
    "no truth": ({"do_sample": "maybe"}, dk.ParameterError, "do_sample='maybe'"),
    "no effect": (
        {"strategy": "sample", "num_beams": 2},
        dk.ParameterError,
        "num_beams=2 would have no effect",
    ),
    "both inputs": ({"inputs": IDS}, ValueError, "input_ids"),
    "strategy": ({"strategy": "gredy"}, dk.UnknownNameError, "Did you mean 'greedy'"),
    "processor": ({"processors": ["topp"]}, dk.UnknownNameError, "Did you mean 'top_p'"),
    "parameter": ({"processors": [("top_p", {"p": 0.5})]}, dk.ParameterError, "top_p has no parameter 'p'"),
    "no strategy": ({"strategy": 7}, dk.ParameterError, "7"),
    "greedy sampling": ({"strategy": "greedy", "do_sample": True}, dk.ParameterError, "contradict"),
    "temperature": (
        {"do_sample": True, "temperature": -1.0},
        dk.ParameterError,
        r"temperature=-1.0 is not allowed",
    ),
    "top_p": ({"do_sample": True, "top_p": 1.5}, ValueError, "top_p"),
    "seed": ({"seed": "x"}, dk.ParameterError, "seed='x'"),
    "floats": ({"input_ids": torch.zeros(1, 3)}, dk.ParameterError, "must hold token ids"),
    "one row": ({"input_ids": torch.tensor([1, 2])}, dk.ParameterError, "add a dimension"),
    "ids": ({"input_ids": torch.tensor([[99]])}, dk.ParameterError, r"\[0, 32\), the model's vocabulary"),
    "mask": ({"attention_mask": torch.ones(2, 3)}, dk.ParameterError, "attention_mask has shape"),
    "stop": ({"stop_strings": ["x"]}, dk.ParameterError, "stop_strings=.*needs tokenizer"),
    "length": ({"max_new_tokens": None, "max_length": 3}, ValueError, "max_length"),
    "negative length": ({"max_new_tokens": -1}, ValueError, "max_new_tokens"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_by_name(name):
    arguments, error, match = REFUSED[name]
    calls = []
    handle = MODEL.register_forward_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(error, match=match):
            dk.generate(MODEL, **{"input_ids": IDS, "max_new_tokens": 4, **arguments})
    finally:
        handle.remove()
    # the allowed tokens of a prefix are only known once they are asked for
    assert not calls or "prefix_allowed_tokens_fn" in arguments

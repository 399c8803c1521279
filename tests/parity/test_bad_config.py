"""Fields of the configuration that are out of range, alone or beside others; and transformers' answer."""

from types import SimpleNamespace

import pytest
from transformers import GenerationConfig

from tests.parity.refusals import ACCEPTS, ONE, Case, assert_accepted, assert_refused

BEAMS = {"num_beams": 2}


def config_with(**others):
    config = GenerationConfig()
    for name, value in others.items():
        setattr(config, name, value)
    return config


REFUSED = {
    "early_stopping": Case(
        arguments={**BEAMS, "early_stopping": "soon"}, raises=ValueError, match="`early_stopping` must be"
    ),
    "early_stopping 3": Case(
        arguments={**BEAMS, "early_stopping": 3}, raises=ValueError, match="`early_stopping` must be"
    ),
    "max_new_tokens -1": Case(
        arguments={"max_new_tokens": -1}, match=r"max_new_tokens=-1.*int in \[0, inf\)"
    ),
    "max_new_tokens 2.5": Case(arguments={"max_new_tokens": 2.5}, match="max_new_tokens=2.5", theirs=ACCEPTS),
    "max_new_tokens text": Case(
        arguments={"max_new_tokens": "3"}, match="max_new_tokens='3'", theirs=TypeError
    ),
    "max_new_tokens True": Case(
        arguments={"max_new_tokens": True}, match="max_new_tokens=True", theirs=ACCEPTS
    ),
    "max_length text": Case(
        arguments={"max_new_tokens": None, "max_length": "a"}, match="max_length='a'", theirs=TypeError
    ),
    "min_length text": Case(arguments={"min_length": "a"}, match="min_length='a'", theirs=TypeError),
    "assistant_ensemble_weight": Case(
        arguments={"assistant_ensemble_weight": 1.5}, raises=ValueError, match="assistant_ensemble_weight"
    ),
    "cache_implementation": Case(
        arguments={"cache_implementation": "magic"}, raises=ValueError, match="Invalid `cache_implementation`"
    ),
    "cache_config": Case(
        arguments={"cache_config": {"nbits": 4}}, match="cache_config would have no effect", theirs=ACCEPTS
    ),
    "compile_config": Case(
        arguments={"compile_config": {"mode": "x"}}, raises=ValueError, match="`compile_config`"
    ),
    "several greedy ones": Case(
        arguments={"num_return_sequences": 2}, raises=ValueError, match="Greedy methods"
    ),
    "more than beams": Case(
        arguments={"num_return_sequences": 4, **BEAMS},
        raises=ValueError,
        match="has to be smaller or equal to `num_beams`",
    ),
    "no sequence": Case(
        arguments={"num_return_sequences": 0}, match="num_return_sequences=0 is not allowed", theirs=ACCEPTS
    ),
    "no beam": Case(arguments={"num_beams": 0}, match="num_beams=0 is not allowed", theirs=ZeroDivisionError),
    "half a beam": Case(arguments={"num_beams": 1.5}, match="num_beams=1.5", theirs=TypeError),
    "beams text": Case(arguments={"num_beams": "2"}, match="num_beams='2' is not allowed", theirs=TypeError),
    "prompt_lookup_num_tokens text": Case(
        arguments={"prompt_lookup_num_tokens": "3", "input_ids": ONE},
        match="prompt_lookup_num_tokens='3' is not allowed",
        theirs=TypeError,
    ),
    "max_matching_ngram_size text": Case(
        arguments={"prompt_lookup_num_tokens": 2, "max_matching_ngram_size": "2", "input_ids": ONE},
        match="max_matching_ngram_size='2' is not allowed",
        theirs=TypeError,
    ),
    "length_penalty number as text": Case(
        arguments={**BEAMS, "length_penalty": "1"}, match="length_penalty='1' is not", theirs=TypeError
    ),
    "length_penalty": Case(
        arguments={**BEAMS, "length_penalty": "a"}, match="length_penalty='a'", theirs=TypeError
    ),
    "an end forced and suppressed": Case(
        arguments={"forced_eos_token_id": 2, "suppress_tokens": [2]},
        raises=ValueError,
        match="Every token in `forced_eos_token_id`",
    ),
    "a beginning forced and suppressed": Case(
        arguments={"forced_bos_token_id": 5, "suppress_tokens": [5, 6]},
        raises=ValueError,
        match="Every token in `forced_bos_token_id`",
    ),
    **{
        f"{name} in the configuration": Case(
            arguments={"generation_config": config_with(**{name: None})},
            raises=ValueError,
            match=f"Argument `{name}` is not a valid argument",
        )
        for name in (
            *("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "synced_gpus"),
            *("assistant_model", "streamer", "negative_prompt_ids", "negative_prompt_attention_mask"),
        )
    },
    "do_sample": Case(arguments={"do_sample": "maybe"}, match="do_sample='maybe'", theirs=ACCEPTS),
    "max_time": Case(arguments={"max_time": "a"}, match="max_time='a'.*a number", theirs=TypeError),
    "stop_strings": Case(
        arguments={"stop_strings": 5, "tokenizer": SimpleNamespace(decode=str)},
        match="stop_strings=5",
        theirs=TypeError,
    ),
    "stop_strings empty": Case(
        arguments={"stop_strings": ["", "x"], "tokenizer": SimpleNamespace(decode=str)},
        match="stop_strings=.*none of them empty",
        theirs=AttributeError,
    ),
    "guidance_scale": Case(arguments={"guidance_scale": "x"}, match="guidance_scale='x'", theirs=TypeError),
    "a type that transformers does not expect": Case(
        arguments={"early_stopping": [True]},
        match=r"look at max_new_tokens=3, early_stopping=\[True\]",
        theirs=TypeError,
    ),
    "eos_token_id text": Case(arguments={"eos_token_id": "x"}, match="eos_token_id='x'", theirs=TypeError),
    "eos_token_id half": Case(arguments={"eos_token_id": 2.5}, match="eos_token_id=2.5", theirs=ACCEPTS),
    "pad_token_id text": Case(arguments={"pad_token_id": "x"}, match="pad_token_id='x'", theirs=TypeError),
    "watermarking_config": Case(
        arguments={"watermarking_config": {"bogus": 1}},
        raises=ValueError,
        match="watermark",
        theirs=TypeError,
    ),
    "watermarking_config ratio": Case(
        arguments={"watermarking_config": {"greenlist_ratio": 1.5}},
        raises=ValueError,
        match="greenlist_ratio",
    ),
    "watermarking_config scheme": Case(
        arguments={"watermarking_config": {"seeding_scheme": "x"}}, raises=ValueError, match="seeding_scheme"
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_out_of_range_is_refused_by_name(name):
    assert_refused(REFUSED[name])


# What is without effect: a warning in both


FLAGS = {
    "temperature": 0.5,
    "top_p": 0.5,
    "min_p": 0.1,
    "top_h": 0.5,
    "typical_p": 0.5,
    "top_k": 3,
    "epsilon_cutoff": 0.1,
    "eta_cutoff": 0.1,
    "early_stopping": True,
    "length_penalty": 2.0,
    "output_scores": True,
    "pad_token_id": -1,
}
NO_EFFECT = "The following generation flags are not valid and may be ignored"


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_without_effect_is_warned_of(name):
    assert_accepted(Case(arguments={name: FLAGS[name]}, theirs=NO_EFFECT))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"use_cache": False, "cache_implementation": "static"}, NO_EFFECT),
        ({"max_cache_len": 40}, "`max_cache_len` is only used with static caches"),
    ],
    ids=str,
)
def test_a_cache_without_effect_is_warned_of(arguments, words):
    assert_accepted(Case(arguments=arguments, theirs=words))


@pytest.mark.parametrize("name", ["sliding_window", "hybrid", "hybrid_chunked"])
def test_old_names_of_caches(name):
    assert_accepted(Case(arguments={"cache_implementation": name}, theirs=ACCEPTS))


@pytest.mark.parametrize("arguments", [{"max_time": -1.0}, {"min_length": -1}, {"num_beams": 2.0}], ids=str)
def test_what_means_something_is_taken(arguments):
    refused = TypeError if "num_beams" in arguments else ACCEPTS
    assert_accepted(Case(arguments=arguments, theirs=refused))

"""A value, or a whole chain, for each prompt: of every processor, as a keyword and in an explicit chain."""

import decodekit as dk
import numpy as np
import pytest
import torch
from decodekit.chain_config import FIELDS, PREFIX, USER
from decodekit.testing.models import tiny_llama

VOCAB = 32
MODEL = tiny_llama(VOCAB)
IDS = torch.tensor([[5, 6, 7, 8, 5], [9, 9, 11, 12, 9]])
VALUES = {
    "adaptive_p": ("target", [0.05, 0.9]),
    "bad_words_ids": ("bad_words_ids", [[[4], [7, 8]], [[n] for n in range(16)]]),
    "begin_suppress_tokens": ("begin_suppress_tokens", [[3], list(range(16))]),
    "dry": ("multiplier", [0.0, 1e3]),
    "dynamic_temperature": ("high", [1.0, 50.0]),
    "encoder_no_repeat_ngram_size": ("encoder_no_repeat_ngram_size", [0, 1]),
    "encoder_repetition_penalty": ("encoder_repetition_penalty", [1.0, 9.0]),
    "epsilon_cutoff": ("epsilon_cutoff", [0.3, 0.0]),
    "eta_cutoff": ("eta_cutoff", [0.9, 0.0]),
    "exponential_decay_length_penalty": ("exponential_decay_length_penalty", [[1, 1.0], [0, 9.0]]),
    "forced_bos_token_id": ("forced_bos_token_id", [3, 4]),
    "forced_eos_token_id": ("forced_eos_token_id", [[3], [4]]),
    "frequency_penalty": ("frequency_penalty", [0.0, 2.0]),
    "logit_bias": ("logit_bias", [{3: 99.0}, {4: 99.0}]),
    "min_new_tokens": ("min_new_tokens", [0, 3]),
    "min_p": ("min_p", [1.0, 0.0]),
    "mirostat_v1": ("tau", [0.1, 9.0]),
    "mirostat_v2": ("tau", [0.1, 9.0]),
    "no_repeat_ngram_size": ("no_repeat_ngram_size", [1, 0]),
    "p_less": ("norm", [True, False]),
    "presence_penalty": ("presence_penalty", [0.0, 2.0]),
    "quadratic": ("smoothing_factor", [0.0, 9.0]),
    "remove_invalid_values": ("remove_invalid_values", [True, False]),
    "renormalize_logits": ("renormalize_logits", [True, False]),
    "repetition_penalty": ("repetition_penalty", [1.0, 3.0]),
    "sequence_bias": ("sequence_bias", [[[[3], 9.0]], [[[4], 99.0]]]),
    "skew": ("skew", [-5.0, 5.0]),
    "suppress_tokens": ("suppress_tokens", [[3], list(range(16))]),
    "temperature": ("temperature", [0.1, 9.0]),
    "tfs": ("tfs", [0.1, 1.0]),
    "top_a": ("top_a", [1.0, 0.0]),
    "top_h": ("top_h", [0.1, 1.0]),
    "top_k": ("top_k", [1, 0]),
    "top_n_sigma": ("top_n_sigma", [0.1, 9.0]),
    "top_p": ("top_p", [0.1, 1.0]),
    "typical_p": ("typical_p", [0.1, 1.0]),
    "xtc": ("probability", [0.0, 1.0]),
}
"""Of each processor a parameter, and two values of it."""


def call(**arguments):
    """Two sampled rows, and everything that is told of them."""
    arguments = {"input_ids": IDS, "max_new_tokens": 4, "eos_token_id": 2, "seed": [1, 2], **arguments}
    return dk.generate(MODEL, do_sample=True, return_dict_in_generate=True, **arguments)


def rows_of(outputs):
    return [
        (output.sequences[row].tolist(), output.token_logprobs[row]) for row, output in enumerate(outputs)
    ]


def assert_rows(mixed, *alone):
    """Row ``i`` of the mixed call is row ``i`` of the i-th call, whose length may be another."""
    for (one, values), (other, wanted) in zip(rows_of([mixed] * 2), rows_of(alone), strict=True):
        length = min(len(one), len(other))
        assert one[:length] == other[:length]
        torch.testing.assert_close(values[: len(wanted)], wanted[: len(values)], atol=1e-5, rtol=1e-5)


def test_every_processor_is_here():
    own = {name for name, entry in dk.processors().items() if entry.distribution == "decodekit-processors"}
    assert own >= VALUES.keys()


@pytest.mark.parametrize("name", VALUES)
def test_a_value_for_each_prompt_in_a_chain(name):
    parameter, values = VALUES[name]
    mixed = call(processors=[(name, {parameter: values})])
    assert_rows(mixed, *(call(processors=[(name, {parameter: value})]) for value in values))


@pytest.mark.parametrize("field", [field for field in FIELDS if field.name in VALUES], ids=lambda f: f.name)
def test_a_value_for_each_prompt_as_a_keyword(field):
    _, values = VALUES[field.name]
    values = [values[0], None] if field.name == "top_h" else values
    mixed = call(**{"top_k": 0, field.name: values})
    assert_rows(mixed, *(call(**{"top_k": 0, field.name: value}) for value in values))


def test_every_field_of_the_configuration_is_here():
    assert {field.name for field in FIELDS if field not in (USER, PREFIX)} <= {*VALUES, "watermarking_config"}


@pytest.mark.parametrize(
    "kind", [np.array, torch.tensor, lambda values: [np.array(value) for value in values]]
)
@pytest.mark.parametrize("name", ["temperature", "top_p", "suppress_tokens", "renormalize_logits"])
def test_the_values_may_be_arrays(name, kind):
    values = [[3], [4]] if name == "suppress_tokens" else VALUES[name][1]
    listed, spelt = call(**{name: values}), call(processors=[(name, {name: values})])
    assert_rows(call(**{name: kind(values)}), listed, listed)
    assert_rows(call(processors=[(name, {name: kind(values)})]), spelt, spelt)


def test_a_value_for_each_prompt_in_a_text():
    mixed = call(processors="top_k=[1, 0] > temperature=[1, 9.0]")
    assert mixed.stats.chains == ("top_k=1", "temperature=9")


@pytest.mark.parametrize(
    "chains",
    [
        ["top_k=1", None],
        [["top_k", ("min_p", {"min_p": 0.3})], dk.Chain.parse("repetition_penalty=2 > temperature=3")],
        [[], "mirostat_v2 > top_k=3"],
        [dk.Chain.parse("temperature=3"), dk.Chain.parse("temperature=3")],
    ],
    ids=str,
)
def test_a_chain_for_each_prompt(chains):
    mixed = call(processors=chains)
    alone = [call(processors=[] if chain is None else chain) for chain in chains]
    assert_rows(mixed, *alone)
    assert {*mixed.stats.chains} == {chain for output in alone for chain in output.stats.chains}


@pytest.mark.parametrize(
    ("spec", "chain"),
    [
        ("temperature=0.8 > top_k=50 > min_p=0.05", "temperature=0.8 > min_p=0.05"),
        (["temperature=0.8 > top_k=5", "min_p"], "temperature=0.8 > top_k=5 > min_p=0.05"),
        (dk.Chain.parse("top_k=4"), "top_k=4"),
        ("top_k", "none"),
        (("top_k", {"top_k": 7}), "top_k=7"),
        ("none", "none"),
        ([], "none"),
    ],
    ids=str,
)
def test_a_chain_is_taken_in_every_form(spec, chain):
    assert call(processors=spec).stats.chains == (chain,)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([["top_k"], "top_k", dk.Chain()], "processors= holds 3 chains for 2 prompts"),
        ([dk.Chain()], "processors= holds 1 chain for 2 prompts: give each its own, or a flat list"),
        ([("top_k", 5)], r"write \('top_k', \{'top_k': 5\}\)"),
        (["min_p", ["dry", 0.8]], r"write \('dry', \{'multiplier': 0.8\}\)"),
        ([("top_k", [1, 2])], r"write \('top_k', \{'top_k': \[1, 2\]\}\)"),
        (("top_k", 5), r"write \('top_k', \{'top_k': 5\}\)"),
        (("top_k", [1, 2]), r"write \('top_k', \{'top_k': \[1, 2\]\}\)"),
        ([("top_k", torch.tensor(5))], r"write \('top_k', \{'top_k': tensor\(5\)\}\)"),
        ([[("top_k", 5)], None], r"write \('top_k', \{'top_k': 5\}\)"),
        ([("p_less_", 5)], "Did you mean 'p_less'"),
        ([["top_k"], ("top_k", {"top_k": 2})], "give a flat list of processors for all prompts"),
        (
            [("suppress_tokens", {"suppress_tokens": [[1]]})],
            "suppress_tokens has 1 value for 2 prompts: .* one for all",
        ),
        ("top_k=5 > top_n_sigma", "top_n_sigma measures the whole vocabulary"),
        (7, "7 is not a processor"),
        ([["top_k"], 7], "and 7 beside them"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_chain_is_named_before_the_model_runs(spec, message):
    with pytest.raises((dk.ParameterError, dk.UnknownNameError), match=message):
        call(processors=spec)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [-1.0, 0.5],
            r"add do_sample=True.*\. Besides, temperature=-1.0 is not allowed: temperature",
        ),
        ([0.0, 0.5], "add do_sample=True, or leave it out$"),
    ],
)
def test_values_that_are_wrong_twice_are_told_both(values, message):
    with pytest.raises(dk.ParameterError, match=message):
        dk.generate(MODEL, IDS, max_new_tokens=2, temperature=values)

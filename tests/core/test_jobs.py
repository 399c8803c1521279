"""What each prompt of a list asks for, and whose fault it is when that can't be."""

import copy
import re

import decodekit as dk
import pytest
import torch
import transformers as tf
from decodekit.call import Options
from decodekit.jobs import Setup, _frozen, read_jobs
from decodekit.testing.models import tiny_llama
from hypothesis import given
from hypothesis import strategies as st

MODEL = tiny_llama(16, seed=2)


class Words:
    """A tokenizer of numbers."""

    def decode(self, ids, skip_special_tokens=True):
        return " ".join(map(str, ids))


FAULTS = {
    r"the prompt holds ids from 3 to 99: they must be in \[0, 16\)": ([3, 99], {}),
    "the prompt holds ids from -5 to 3": ([3, -5], {}),
    "the prompt holds ids from 3 to 1180591620717411303424": ({"prompt": [3, 2**70]}, {}),
    "the prompt has 600 tokens, and LlamaForCausalLM has 512 positions": ([3] * 600, {}),
    "tensor.* is no prompt": (torch.tensor([True, False]), {}),
    "max_length": ([3, 4, 5, 6], {"max_length": 4}),
    "temperature": ([3], {"do_sample": True, "temperature": {"bad": -1.0, "good": 0.5}}),
    "max_new_tokens=0.5 is not allowed": ([3], {"max_new_tokens": {"bad": 0.5, "good": 2}}),
}


@pytest.mark.parametrize("message", FAULTS)
@pytest.mark.parametrize("order", [("bad", "good"), ("good", "bad")], ids=" ".join)
def test_the_fault_of_one_prompt_is_not_that_of_all(message, order):
    """Wherever it stands in the list; the first one is not tried in the name of all."""
    wrong, arguments = FAULTS[message]
    arguments = ({"max_new_tokens": 2} if "max_length" not in arguments else {}) | {
        name: [value[one] for one in order] if isinstance(value, dict) else value
        for name, value in arguments.items()
    }
    prompts = [{"bad": wrong, "good": [5, 6]}[one] for one in order]
    results = dk.generate_batch(MODEL, Words(), prompts, errors="keep", **arguments)
    found = dict(zip(order, results, strict=True))
    assert re.search(message, str(found["bad"].error))
    assert found["good"].error is None
    assert found["good"].tokens
    with pytest.raises(ValueError, match=rf"prompts\[{order.index('bad')}\]"):
        dk.stream_batch(MODEL, Words(), prompts, **arguments)


def test_what_a_call_is_warned_of_a_list_is_warned_of_too():
    """Once: the trial of what holds for all says nothing, and takes no warning away."""
    with pytest.warns(UserWarning, match="default `max_length`") as caught:
        dk.stream_batch(MODEL, Words(), [[3], [4, 5]])
    assert len(caught) == 1


def jobs_of(prompts, **common):
    options = Options(strategy="sample", seed=0, tokenizer=Words())
    setup = Setup(model=MODEL, config=None, common={"max_new_tokens": 3, **common}, options=options)
    known = {"temperature", "max_new_tokens", "forced_eos_token_id", "num_return_sequences"}
    return read_jobs(setup, prompts, known, None, 0, pytest.fail)


def test_prompts_that_ask_for_the_same_share_a_chain():
    """Also where they differ in what its processors don't know; rows would go through it one by one."""
    jobs = jobs_of([{"prompt": [3], "max_new_tokens": count, "temperature": 0.5} for count in (3, 4, 3)])
    assert jobs[0].kind is jobs[2].kind is not jobs[1].kind
    assert jobs[0].kind.call.chains[0] is jobs[1].kind.call.chains[0]
    assert jobs[0].kind.mixes_with(jobs[1].kind)
    own = jobs_of([{"prompt": [3], "max_new_tokens": count, "forced_eos_token_id": 5} for count in (3, 4)])
    assert own[0].kind.call.chains[0] is not own[1].kind.call.chains[0]


def test_values_of_a_prompt_may_be_whatever_the_configuration_takes():
    """Also dictionaries whose keys are tuples, which are no JSON, and tensors."""
    prompts = [
        {"prompt": [3], "sequence_bias": {(5,): 90.0}},
        {"prompt": [3], "sequence_bias": {(6,): 90.0, (5,): 9.0}},
        {"prompt": [3], "eos_token_id": torch.tensor([5, 9])},
    ]
    results = dk.generate_batch(MODEL, Words(), prompts, max_new_tokens=3)
    assert [result.tokens for result in results[:2]] == [[5, 5, 5], [6, 6, 6]]
    for one, result in zip(prompts, results, strict=True):
        ids, own = one["prompt"], {name: value for name, value in one.items() if name != "prompt"}
        assert (
            result.tokens == dk.generate(MODEL, torch.tensor([ids]), max_new_tokens=3, **own)[0, 1:].tolist()
        )


VALUES = st.recursive(
    st.sampled_from([None, True, 1, 1.0, 0, False, "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([(5,), "a", 1]), inner),
    max_leaves=4,
)


def spelt(value):
    """A value as text, whatever the order of its keys."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{key!r}: {spelt(own)}" for key, own in value.items())) + "}"
    return "[" + ", ".join(map(spelt, value)) + "]" if isinstance(value, list) else repr(value)


@given(VALUES, VALUES)
def test_values_are_the_same_when_their_types_are_and_what_they_hold(one, other):
    assert (_frozen(one) == _frozen(other)) == (spelt(one) == spelt(other))
    again = copy.deepcopy({"a": [one], "b": other})
    assert hash(_frozen({"b": other, "a": [one]})) == hash(_frozen(again))


def test_what_has_no_hash_is_the_same_as_itself():
    one, other = tf.WatermarkingConfig(), tf.WatermarkingConfig()
    assert _frozen({"a": one}) == _frozen({"a": one}) != _frozen({"a": other})
    assert _frozen(torch.tensor([1, 2])) == _frozen([1, 2])


def test_what_a_batch_has_one_of_is_decoded_one_after_the_other():
    plain, double = jobs_of([[3], {"prompt": [3], "num_return_sequences": 2}])
    assert not plain.kind.mixes_with(double.kind)

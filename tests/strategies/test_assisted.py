from typing import ClassVar

import attrs
import decodekit as dk
import pytest
import torch
from decodekit.testing import strategy_checks
from decodekit.testing.models import CacheHashModel, MarkovModel, tiny_llama, tiny_mamba, tiny_mistral
from decodekit_strategies.assisted import Assisted
from hypothesis import given, settings
from hypothesis import strategies as st

VOCAB = 6
SPECIAL = {"eos_token_id": 5, "pad_token_id": 0, "bos_token_id": 1}
MODELS = {
    "llama": tiny_llama(VOCAB, seed=3, **SPECIAL),
    "mistral": tiny_mistral(VOCAB, window=4, seed=3),
    "hash": CacheHashModel(VOCAB, **SPECIAL),
    "markov": MarkovModel.random(VOCAB, order=2, **SPECIAL),
}
DRAFT = tiny_llama(VOCAB, seed=9, **SPECIAL)


@attrs.frozen
class Tired(dk.StatefulProcessor[int]):
    """Favours a token the more, the longer the row; its state counts the row's even tokens."""

    NAME: ClassVar[str] = "tired"

    def init(self, prompt):
        return len(prompt)

    def advance(self, state, token, logits):
        return state + 1 - token % 2

    def process(self, logits, history, states):
        bias = torch.zeros_like(logits)
        bias[:, 3] = torch.tensor(states, dtype=logits.dtype) / 8
        return logits + bias


def inputs_of(prompts):
    width = max(map(len, prompts))
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    ids = [[0] * (width - len(prompt)) + prompt for prompt in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


DRAFTERS = {
    "lookup": {"prompt_lookup_num_tokens": 4},
    "model": {"assistant_model": DRAFT, "num_assistant_tokens": 4},
    "sure model": {
        "assistant_model": DRAFT,
        "assistant_confidence_threshold": 0.0,
        "num_assistant_tokens": 3,
    },
    "itself": {"assistant_model": MODELS["llama"], "num_assistant_tokens_schedule": "heuristic"},
    "automaton": {"strategy": "assisted", "drafter": "suffix_automaton", "adaptive": False},
}
CHAINS = {
    "none": {},
    "own values": {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2, "min_new_tokens": 3},
    "stateful": {"processors": [Tired, ("temperature", {"temperature": 1.3})]},
}
PROMPTS = st.lists(st.lists(st.integers(1, VOCAB - 2), min_size=1, max_size=6), min_size=1, max_size=3)


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6)
@given(
    prompts=PROMPTS,
    seed=st.integers(0, 1000),
    chain=st.sampled_from(sorted(CHAINS)),
    cache=st.sampled_from([{}, {"use_cache": False}, {"cache_implementation": "static"}]),
    copies=st.integers(1, 2),
)
def test_a_draft_changes_no_token(name, drafter, prompts, seed, chain, cache, copies):
    if name == "mistral" and "cache_implementation" in cache:
        cache = {}
    arguments = {
        **inputs_of(prompts),
        **CHAINS[chain],
        **cache,
        "max_new_tokens": 9,
        "num_return_sequences": copies,
    }
    arguments |= {"do_sample": True, "seed": seed, "return_dict_in_generate": True, "output_scores": True}
    plain = dk.generate(MODELS[name], **arguments)
    fast = dk.generate(MODELS[name], **arguments, **DRAFTERS[drafter])
    assert fast.stats.strategy == "assisted"
    assert torch.equal(fast.sequences, plain.sequences)
    assert fast.finish_reasons == plain.finish_reasons
    torch.testing.assert_close(fast.token_logprobs, plain.token_logprobs, rtol=0, atol=1e-9)
    for one, other in zip(plain.scores, fast.scores, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert 0 <= fast.stats.accepted <= fast.stats.drafted


@pytest.mark.parametrize("drafter", DRAFTERS)
@settings(max_examples=10)
@given(prompts=PROMPTS)
def test_without_sampling_the_tokens_are_greedys(drafter, prompts):
    arguments = {**inputs_of(prompts), "max_new_tokens": 12}
    greedy = dk.generate(MODELS["llama"], **arguments)
    state = torch.random.get_rng_state()
    assert torch.equal(dk.generate(MODELS["llama"], **arguments, **DRAFTERS[drafter]), greedy)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("drafter", ["lookup", "model"])
def test_one_row_gives_transformers_tokens(drafter):
    model = tiny_llama(VOCAB, seed=3, dtype=torch.float32, **SPECIAL)
    draft = tiny_llama(VOCAB, seed=9, dtype=torch.float32, **SPECIAL)
    arguments = dict(DRAFTERS[drafter])
    if "assistant_model" in arguments:
        arguments["assistant_model"] = draft
    arguments.pop("num_assistant_tokens", None)
    arguments |= {"input_ids": torch.tensor([[1, 2, 3, 1, 2]]), "max_new_tokens": 12}
    arguments["attention_mask"] = torch.ones_like(arguments["input_ids"])
    assert torch.equal(dk.generate(model, **arguments), model.generate(**arguments))


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(run, id=f"{kind} {name}")
        for kind, assisted in {
            "greedy": Assisted(drafter="prompt_lookup", num_assistant_tokens=3),
            "sampling": Assisted(drafter="prompt_lookup", num_assistant_tokens=3, do_sample=True),
        }.items()
        for name, run in strategy_checks(assisted)
    ],
)
def test_the_kit(check):
    check()


JUDGED = {
    "rejection": Assisted(
        drafter="prompt_lookup", verification="rejection", num_assistant_tokens=3, do_sample=True
    ),
    "block": Assisted(drafter="prompt_lookup", verification="block", num_assistant_tokens=3, do_sample=True),
}
TELLING = ("S2", "S4", "S6", "S8", "S10", "S12", "S28", "S30", "S31")


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(run, id=f"{rule} {name}")
        for rule, assisted in JUDGED.items()
        for name, run in strategy_checks(assisted, profile=None if rule == "block" else "fast")
        if name.split()[0] in TELLING
    ],
)
def test_the_kit_on_rules_with_noise_of_their_own(check):
    check()


def test_a_draft_model_that_is_the_target_is_always_right():
    model = tiny_llama(VOCAB, seed=3, eos_token_id=None, pad_token_id=0)
    output = dk.generate(
        model,
        **inputs_of([[1, 2, 3], [4]]),
        strategy="assisted",
        assistant_model=model,
        num_assistant_tokens=4,
        assistant_confidence_threshold=0.0,
        adaptive=False,
        do_sample=True,
        temperature=2.0,
        top_k=0,
        seed=1,
        max_new_tokens=15,
        return_dict_in_generate=True,
    )
    assert output.stats.accepted == output.stats.drafted == 2 * 12
    assert output.stats.forward_passes == 1 + 3


def test_lookup_saves_forward_passes_where_the_text_repeats_itself():
    table = torch.zeros(VOCAB, VOCAB).roll(0)
    for token in range(4):
        table[token, (token + 1) % 4] = 50.0
    model = MarkovModel(table, **SPECIAL)
    output = dk.generate(
        model,
        input_ids=torch.tensor([[0, 1, 2, 3, 0, 1]]),
        attention_mask=torch.ones(1, 6, dtype=torch.long),
        strategy="assisted",
        prompt_lookup_num_tokens=4,
        adaptive=False,
        max_new_tokens=20,
        return_dict_in_generate=True,
    )
    assert output.stats.forward_passes == 1 + 4
    assert output.stats.accepted == 16


def test_unseeded_draws_come_from_the_global_generator():
    arguments = {
        **inputs_of([[1, 2, 3]]),
        "do_sample": True,
        "prompt_lookup_num_tokens": 3,
        "max_new_tokens": 15,
        "num_return_sequences": 5,
    }
    outputs = []
    with torch.random.fork_rng():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            outputs.append(dk.generate(MODELS["markov"], **arguments).tolist())
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


def test_streams_say_accepted_tokens_only():
    class Letters:
        def decode(self, ids, **_):
            return "".join("abcdef"[token] for token in ids)

    arguments = {"prompt_lookup_num_tokens": 4, "do_sample": True, "seed": 2, "max_new_tokens": 9}
    events = list(dk.stream(MODELS["markov"], Letters(), inputs_of([[1, 2, 1, 2], [3]]), **arguments))
    result = events[-1].output.sequences
    for row in range(2):
        tokens = [event.token for event in events if isinstance(event, dk.TokenEvent) and event.row == row]
        assert tokens == result[row, 4 : 4 + len(tokens)].tolist()


REFUSED = {
    "nothing drafts": ({"strategy": "assisted"}, dk.ParameterError, "needs something that drafts"),
    "two drafters": (
        {"assistant_model": DRAFT, "prompt_lookup_num_tokens": 3},
        dk.ParameterError,
        "and not both",
    ),
    "another vocabulary": ({"assistant_model": tiny_llama(7)}, dk.ParameterError, "vocabulary of 7 tokens"),
    "a recurrent draft model": (
        {"assistant_model": tiny_mamba(VOCAB)},
        dk.CapabilityError,
        "needs positions.*MambaForCausalLM",
    ),
    "no effect": (
        {"strategy": "greedy", "assistant_model": DRAFT},
        dk.ParameterError,
        "would have no effect",
    ),
    "no tokens": ({"prompt_lookup_num_tokens": 0}, dk.ParameterError, "prompt_lookup_num_tokens=0"),
    "early exit": ({"assistant_early_exit": 2}, dk.ParameterError, "takes 1 to 1"),
    "early exit without layers": (
        {"strategy": "assisted", "drafter": ("early_exit", {"layers": 0})},
        dk.ParameterError,
        "layers=0",
    ),
    "an unknown drafter": (
        {"strategy": "assisted", "drafter": "prompt_lokup"},
        dk.UnknownNameError,
        "Did you mean 'prompt_lookup'",
    ),
    "another tokenizer without ours": (
        {"assistant_model": tiny_llama(7), "assistant_tokenizer": object()},
        dk.ParameterError,
        "give tokenizer=",
    ),
    "a tokenizer without a model": (
        {"prompt_lookup_num_tokens": 3, "assistant_tokenizer": object()},
        dk.ParameterError,
        "no effect without assistant_model",
    ),
    "a look-up's parameter for a drafter by name": (
        {"strategy": "assisted", "drafter": "prompt_lookup", "max_matching_ngram_size": 3},
        dk.ParameterError,
        "max_matching_ngram_size=3 would have no effect without prompt_lookup_num_tokens=: leave it out, or "
        r"give a drafter its own parameters: drafter=\(name, \{parameter: value\}\)",
    ),
    "a look-up's parameter for a model": (
        {"assistant_model": DRAFT, "max_matching_ngram_size": 3},
        dk.ParameterError,
        "max_matching_ngram_size=3 would have no effect without prompt_lookup_num_tokens=",
    ),
    "its last tokens without its tokenizer": (
        {"assistant_model": DRAFT, "assistant_lookbehind": 3},
        dk.ParameterError,
        "assistant_lookbehind=3 would have no effect without assistant_tokenizer=",
    ),
    "our last tokens without its tokenizer": (
        {"prompt_lookup_num_tokens": 3, "target_lookbehind": 3},
        dk.ParameterError,
        "target_lookbehind=3 would have no effect without assistant_tokenizer=",
    ),
    "typical's epsilon under another rule": (
        {
            "strategy": "assisted",
            "drafter": "prompt_lookup",
            "verification": "block",
            "do_sample": True,
            "typical_epsilon": 0.2,
        },
        dk.ParameterError,
        "typical_epsilon=0.2 would have no effect without verification='typical'",
    ),
    "typical's delta under an ensemble": (
        {
            "strategy": "assisted",
            "assistant_model": DRAFT,
            "do_sample": True,
            "verification": "typical",
            "assistant_ensemble_weight": 0.5,
            "typical_delta": 0.2,
        },
        dk.ParameterError,
        "typical_delta=0.2 would have no effect without verification='typical'",
    ),
    "a lossy rule without draws": (
        {"strategy": "assisted", "drafter": "prompt_lookup", "verification": "typical"},
        dk.ParameterError,
        "no effect: add do_sample",
    ),
    "an ensemble without q": (
        {"prompt_lookup_num_tokens": 3, "assistant_ensemble_weight": 0.5, "do_sample": True},
        dk.ParameterError,
        "'prompt_lookup' draws nothing",
    ),
    "an ensemble without a weight": (
        {
            "strategy": "assisted",
            "assistant_model": DRAFT,
            "verification": "ensemble",
            "do_sample": True,
        },
        dk.ParameterError,
        "needs assistant_ensemble_weight",
    ),
    "block diffusion": (
        {"assistant_model": DRAFT, "speculation_type": "dflash"},
        dk.UnsupportedArgumentError,
        "speculation_type='dflash'",
    ),
    "multi-token heads": ({"use_mtp": True}, dk.ParameterError, "LlamaForCausalLM has none"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_before_the_first_forward(name):
    arguments, error, match = REFUSED[name]
    calls = []
    handle = MODELS["llama"].register_forward_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(error, match=match):
            dk.generate(MODELS["llama"], **inputs_of([[1, 2]]), max_new_tokens=3, **arguments)
    finally:
        handle.remove()
    assert not calls


@pytest.mark.parametrize(
    "values",
    [
        {"drafter": "prompt_lookup", "max_matching_ngram_size": 2, "target_lookbehind": 10},
        {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 4, "typical_epsilon": 0.09},
        {"assistant_model": DRAFT, "assistant_tokenizer": object(), "assistant_lookbehind": 3},
        {"assistant_model": DRAFT, "assistant_tokenizer": object(), "target_lookbehind": 3},
        {
            "drafter": "prompt_lookup",
            "do_sample": True,
            "verification": "typical",
            "typical_epsilon": 0.2,
            "typical_delta": 0.1,
        },
    ],
)
def test_a_parameter_is_taken_as_its_default_or_where_it_has_an_effect(values):
    assisted = Assisted(**values)
    assert {name: getattr(assisted, name) for name in values} == values


def test_a_recurrent_target_is_refused_by_name_unless_it_recomputes():
    model = tiny_mamba(VOCAB)
    arguments = {**inputs_of([[1, 2, 1]]), "max_new_tokens": 5, "prompt_lookup_num_tokens": 2}
    with pytest.raises(dk.CapabilityError, match="'assisted' needs positions"):
        dk.generate(model, **arguments)
    assert torch.equal(
        dk.generate(model, use_cache=False, **arguments),
        dk.generate(model, **inputs_of([[1, 2, 1]]), max_new_tokens=5, use_cache=False),
    )

"""The same call to `decodekit.generate` and to ``model.generate``, compared field by field."""

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import CacheHashModel, MarkovModel, tiny_llama
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    NoBadWordsLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
)

from tests.parity.differential import MODELS, VOCAB, assert_same, both, prompts_of

SETTINGS = {
    "greedy": {},
    "greedy with repetition penalty": {"repetition_penalty": 1.4},
    "greedy with a least length": {"min_new_tokens": 5, "eos_token_id": [2, 5, 9, 11]},
    "greedy with a least total length": {"min_length": 9, "eos_token_id": [2, 5, 9, 11]},
    "greedy, several EOS": {"eos_token_id": [2, 5, 9, 11, 14, 20, 21, 22]},
    "greedy, static cache": {"cache_implementation": "static"},
    "greedy, no cache": {"use_cache": False},
    "greedy, no n-gram twice": {"no_repeat_ngram_size": 2},
    "greedy, no n-gram of the prompt": {"encoder_no_repeat_ngram_size": 1},
    "greedy with the prompt's words": {"encoder_repetition_penalty": 1.7},
    "greedy with biases": {
        "sequence_bias": [[[4], 2.0], [[4, 4], -float("inf")], [[4, 5], 3.0], [[7], -1.0]]
    },
    "greedy without bad words": {"bad_words_ids": [[3], [4, 5], [2], [6, 6, 6]]},
    "greedy, suppressed": {"suppress_tokens": [4, 7, 40]},
    "greedy, suppressed at the beginning": {"begin_suppress_tokens": [*range(2, 29)]},
    "greedy, forced beginning": {"forced_bos_token_id": 5},
    "greedy, forced and suppressed beginning": {
        "forced_bos_token_id": 5,
        "begin_suppress_tokens": [*range(2, 29)],
    },
    "greedy, forced end": {"forced_eos_token_id": 2},
    "greedy, one of two forced ends": {"forced_eos_token_id": [2, 9], "eos_token_id": [2, 9]},
    "greedy, the end gains": {"exponential_decay_length_penalty": (2, 1.6)},
    "sample, the end gains": {"exponential_decay_length_penalty": [1, 1.3], "do_sample": True, "top_k": 0},
    "greedy, normalised": {"renormalize_logits": True},
    "sample, normalised": {"do_sample": True, "top_k": 9, "renormalize_logits": True},
    "greedy, invalid values": {"remove_invalid_values": True, "bad_words_ids": [[3], [4, 5]]},
    "sample, invalid values": {"remove_invalid_values": True, "do_sample": True, "top_k": 5},
    "sample with biases": {"sequence_bias": {(4,): 2.0, (4, 4): -5.0}, "do_sample": True},
    "sample": {"do_sample": True},
    "sample, whole vocabulary": {"do_sample": True, "top_k": 0},
    "sample, warm": {"do_sample": True, "temperature": 1.7, "top_k": 0},
    "sample, nucleus": {"do_sample": True, "temperature": 0.7, "top_p": 0.8},
    "sample, top-p 0": {"do_sample": True, "top_p": 0.0},
    "sample, min-p": {"do_sample": True, "top_k": 0, "min_p": 0.1},
    "sample, typical": {"do_sample": True, "top_k": 0, "typical_p": 0.6},
    "sample, epsilon": {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.03},
    "sample, eta": {"do_sample": True, "top_k": 0, "eta_cutoff": 0.03},
    "sample, top-H": {"do_sample": True, "top_k": 0, "top_h": 0.6},
    "sample, everything": {
        "do_sample": True,
        "temperature": 1.3,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": 0.02,
        "repetition_penalty": 1.2,
        "min_new_tokens": 3,
    },
    "sample, several sequences": {"do_sample": True, "num_return_sequences": 3},
    "sample, several sequences and EOS": {
        "do_sample": True,
        "num_return_sequences": 2,
        "eos_token_id": [2, 5, 9, 11, 14, 20, 21, 22],
    },
}
# There transformers counts padding as tokens of the prompt: see test_where_theirs_is_wrong.
PADDING_COUNTS = {"encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "no_repeat_ngram_size"}


@pytest.mark.parametrize("lengths", [(4,), (1,), (6, 2, 5)], ids=str)
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("model", MODELS)
def test_the_same_tokens_scores_and_consumption(model, name, lengths):
    arguments = SETTINGS[name]
    if model == "mamba" and "cache" in name:
        pytest.skip("transformers' Mamba has one kind of cache")
    if model == "mamba" and len(lengths) > 1 and max(lengths) > 4:
        lengths = (4, 4, 4)  # its convolution reads padding: transformers' own rows differ when padded
    if arguments.keys() & PADDING_COUNTS:
        lengths = (max(lengths),) * len(lengths)
    inputs = prompts_of(lengths)
    theirs, ours = both(
        MODELS[model],
        max_new_tokens=12,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        **inputs,
        **arguments,
    )
    eos = arguments.get("eos_token_id", [2])
    assert_same(theirs, ours, inputs["input_ids"].shape[1], eos)


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    num_beams=st.integers(2, 5),
    length_penalty=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
    early_stopping=st.sampled_from([True, False, "never"]),
    others=st.sampled_from(
        [
            {},
            {"do_sample": True, "temperature": 0.7},
            {"do_sample": True, "top_p": 0.6, "top_k": 3},
            {"do_sample": True, "min_p": 0.3, "top_k": 0},
            {"repetition_penalty": 1.5},
            {"min_new_tokens": 4},
            {"do_sample": True, "typical_p": 0.7, "top_k": 0},
            {"do_sample": True, "epsilon_cutoff": 0.1, "eta_cutoff": 0.05},
            {"bad_words_ids": [[3], [4, 5]], "sequence_bias": [[[7], 2.0], [[7, 7], -3.0]]},
            {"suppress_tokens": [4, 7], "begin_suppress_tokens": [5, 6, 8]},
            {"forced_eos_token_id": 2, "exponential_decay_length_penalty": (1, 1.3)},
            {"renormalize_logits": True, "repetition_penalty": 1.5},
        ]
    ),
    eos=st.sampled_from([[2], [2, 5, 9, 11], [2, 5, 7, 8, 9, 11, 14, 20, 21, 22, 25, 26, 29]]),
    new=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_any_beam_call(lengths, num_beams, length_penalty, early_stopping, others, eos, new, seed, data):
    inputs = prompts_of(lengths, seed)
    others = {name: min(value, new) if name == "min_new_tokens" else value for name, value in others.items()}
    theirs, ours = both(
        MODELS["llama"],
        seed,
        **inputs,
        num_beams=num_beams,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        num_return_sequences=data.draw(st.integers(1, num_beams)),
        eos_token_id=eos,
        pad_token_id=1,  # with 0 transformers fills beams with EOS
        max_new_tokens=new,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        **others,
    )
    assume(not ours.sequences_scores.isinf().any())  # there transformers returns tokens of probability 0
    assert_same(theirs, ours, inputs["input_ids"].shape[1], eos)


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    temperature=st.floats(0.2, 3),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.01, 1),
    penalty=st.floats(0.5, 2),
    copies=st.integers(1, 3),
    new=st.integers(1, 8),
    seed=st.integers(0, 2**31),
)
def test_any_sampling_call(lengths, temperature, top_k, top_p, penalty, copies, new, seed):
    theirs, ours = both(
        MODELS["llama"],
        seed,
        **prompts_of(lengths, seed),
        do_sample=True,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=penalty,
        num_return_sequences=copies,
        max_new_tokens=new,
    )
    assert torch.equal(theirs, ours)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_length": 11},
        {"generation_config": GenerationConfig(max_new_tokens=7, do_sample=True, top_k=5)},
        {"generation_config": GenerationConfig(max_new_tokens=7), "max_new_tokens": 3},
        {"max_new_tokens": 6, "eos_token_id": None},
        {"max_new_tokens": 6, "pad_token_id": 7},
        {"max_new_tokens": 1},
    ],
    ids=str,
)
def test_lengths_and_configurations_have_the_same_priorities(arguments):
    theirs, ours = both(MODELS["llama"], **prompts_of((5, 3)), **arguments)
    assert torch.equal(theirs, ours)


def test_the_default_length_is_theirs_with_their_warning():
    inputs = prompts_of((4, 2))
    with pytest.warns(UserWarning, match="max_length"):
        theirs, ours = both(MODELS["llama"], **inputs)
    assert torch.equal(theirs, ours)


def test_the_models_own_configuration_counts():
    model = tiny_llama(VOCAB, dtype=torch.float32)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.8, top_k=4, eos_token_id=[2, 9], pad_token_id=0, max_new_tokens=9
    )
    before = model.generation_config.to_dict()
    theirs, ours = both(model, **prompts_of((4, 2)))
    assert torch.equal(theirs, ours)
    assert model.generation_config.to_dict() == before


def test_no_input_starts_from_bos():
    theirs, ours = both(MODELS["llama"], max_new_tokens=5)
    assert torch.equal(theirs, ours)


class Streamer:
    def __init__(self):
        self.seen, self.ends = [], 0

    def put(self, value):
        self.seen.append(value.tolist())

    def end(self):
        self.ends += 1


@pytest.mark.parametrize("arguments", [{}, {"do_sample": True, "num_return_sequences": 2}], ids=str)
def test_a_streamer_gets_the_same_calls(arguments):
    seen = []
    model = MODELS["llama"]
    for generate in (model.generate, lambda **kw: dk.generate(model, **kw)):
        streamer = Streamer()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            generate(**prompts_of((4, 2)), streamer=streamer, max_new_tokens=6, **arguments)
        assert streamer.ends == 1
        seen.append(streamer.seen)
    assert seen[0] == seen[1]


THEIRS = {
    "at its own place": (
        [RepetitionPenaltyLogitsProcessor(1.8)],
        {"repetition_penalty": 1.1, "min_new_tokens": 3},
    ),
    "of a field that is off": ([NoBadWordsLogitsProcessor([[3], [4]], eos_token_id=2)], {}),
    "two of a class": (
        [NoBadWordsLogitsProcessor([[3]], eos_token_id=2), NoBadWordsLogitsProcessor([[4]], eos_token_id=2)],
        {"repetition_penalty": 1.1},
    ),
    "a callable": ([lambda input_ids, scores: scores * 0.5], {"min_new_tokens": 3}),
}


@pytest.mark.parametrize("case", THEIRS)
@pytest.mark.parametrize("seed", range(3))
def test_their_processors_and_criteria_work_and_take_the_place_of_built_ones(case, seed):
    processors, arguments = THEIRS[case]
    theirs, ours = both(
        MODELS["llama"],
        seed,
        **prompts_of((4, 2)),
        do_sample=True,
        max_new_tokens=50,
        logits_processor=LogitsProcessorList(processors),
        stopping_criteria=StoppingCriteriaList([MaxLengthCriteria(max_length=12)]),
        return_dict_in_generate=True,
        output_scores=True,
        **arguments,
    )
    assert_same(theirs, ours, 4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"do_sample": True, "num_return_sequences": 2},
        {"num_beams": 3, "pad_token_id": 1},
        {"bad_words_ids": [[3], [4], [5], [6]]},  # where only these are allowed one is forced
        {"logits_processor": [PrefixConstrainedLogitsProcessor(lambda batch_id, tokens: [9, 2, 3], 1)]},
    ],
    ids=["greedy", "sample", "beams", "bad words", "another constraint"],
)
def test_a_constraint_sees_the_same_rows(arguments, seed):
    """By the number of the row, the last token and the length, while rows end at different times."""

    def allowed(batch_id, tokens):
        start = 3 + (batch_id + int(tokens[-1]) + len(tokens)) % 4
        return [start, start + 1, *([2] if len(tokens) % 3 == batch_id else [])]

    theirs, ours = both(
        MODELS["llama"],
        seed,
        **prompts_of((4, 2, 3)),
        max_new_tokens=9,
        prefix_allowed_tokens_fn=allowed,
        return_dict_in_generate=True,
        output_scores=True,
        **arguments,
    )
    assert_same(theirs, ours, 4)


def test_their_processors_see_every_row_in_its_place():
    """A processor that treats rows by their index, while rows of other lengths leave the batch."""

    def by_index(input_ids, scores):
        assert len(input_ids) == 3
        bias = torch.zeros_like(scores)
        for row in range(3):
            bias[row, 3 + row] = 8.0
            bias[row, 2] = 3.0 * row
        return scores + bias

    theirs, ours = both(
        MODELS["llama"],
        **prompts_of((4, 2, 3)),
        max_new_tokens=20,
        do_sample=True,
        logits_processor=[by_index],
    )
    assert torch.equal(theirs, ours)


@pytest.mark.parametrize(
    "model",
    [
        CacheHashModel(VOCAB, eos_token_id=2, pad_token_id=0),
        MarkovModel.random(VOCAB, eos_token_id=2, pad_token_id=0),
    ],
)
def test_the_models_made_for_testing_run_in_transformers_too(model):
    theirs, ours = both(model, **prompts_of((4, 4)), max_new_tokens=8, do_sample=True)
    assert torch.equal(theirs, ours)

"""Values that a logits processor can't work with are refused by name; and what transformers does then."""

import decodekit as dk
import pytest

from tests.parity.refusals import ACCEPTS, ONE, VOCAB, Case, assert_accepted, assert_refused

NAN = float("nan")
SAMPLE = {"do_sample": True}
SAMPLING = {
    "temperature": {
        -1.0: ValueError,
        "hot": ValueError,
        "0.5": ValueError,
        NAN: ValueError,
        float("inf"): ACCEPTS,
    },
    "top_p": {-0.1: ValueError, 1.5: ACCEPTS, "x": TypeError, "0.5": TypeError},
    "top_k": {-1: ValueError, 2.5: ValueError, "x": ValueError, "5": ValueError, True: TypeError},
    "top_h": {0.0: ValueError, -0.1: ValueError, 1.5: ValueError, "x": TypeError, "0.5": TypeError},
    "min_p": {-0.1: ValueError, 1.5: ValueError, "x": TypeError, "0.5": TypeError},
    "typical_p": {0.0: ValueError, -0.1: ValueError, 1.5: ACCEPTS, "x": TypeError, "0.5": TypeError},
    "epsilon_cutoff": {-0.1: ACCEPTS, 1.5: ACCEPTS, "x": TypeError, "0.1": TypeError},
    "eta_cutoff": {-0.1: ACCEPTS, 1.5: ACCEPTS, "x": TypeError, "0.1": TypeError},
}
ALWAYS = {
    "top_k": {"5": TypeError},
    "repetition_penalty": {
        0.0: ValueError,
        -1.0: ValueError,
        "x": ValueError,
        "1.1": ValueError,
        NAN: ValueError,
    },
    "encoder_repetition_penalty": {
        0.0: ValueError,
        -1.0: ValueError,
        "x": ValueError,
        "1.1": ValueError,
        NAN: ValueError,
    },
    "no_repeat_ngram_size": {-1: ACCEPTS, 1.5: ValueError, "x": TypeError, "2": TypeError},
    "encoder_no_repeat_ngram_size": {-1: ACCEPTS, 1.5: ValueError, "x": TypeError, "2": TypeError},
    "min_new_tokens": {1.5: ValueError, "x": TypeError},
    "renormalize_logits": {"x": ACCEPTS},
    "remove_invalid_values": {"yes": ACCEPTS},
}
NUMBERS = [
    (name, value, error, sampling)
    for fields, sampling in ((SAMPLING, SAMPLE), (ALWAYS, {}))
    for name, values in fields.items()
    for value, error in values.items()
]
# name: (value, transformers' answer)
STRUCTURED = [
    ("sequence_bias", {}, ValueError),
    ("sequence_bias", [], ValueError),
    ("sequence_bias", "x", ValueError),
    ("sequence_bias", {(5,): "x"}, ValueError),
    ("sequence_bias", {(-5,): 1.0}, ValueError),
    ("sequence_bias", {(99,): 1.0}, ValueError),
    ("bad_words_ids", [], ValueError),
    ("bad_words_ids", [[]], ACCEPTS),
    ("bad_words_ids", "x", ValueError),
    ("bad_words_ids", [["a"]], ValueError),
    ("bad_words_ids", [[3, -1]], ValueError),
    ("bad_words_ids", [[99]], ValueError),
    ("forced_bos_token_id", -1, ACCEPTS),
    ("forced_bos_token_id", 99, IndexError),
    ("forced_bos_token_id", "x", TypeError),
    ("forced_eos_token_id", -1, ValueError),
    ("forced_eos_token_id", 99, IndexError),
    ("forced_eos_token_id", [2, -1], ValueError),
    ("forced_eos_token_id", "x", TypeError),
    ("forced_eos_token_id", "5", TypeError),
    ("forced_eos_token_id", 5.5, ValueError),
    ("exponential_decay_length_penalty", (1,), IndexError),
    ("exponential_decay_length_penalty", (1, 2, 3), ACCEPTS),
    ("exponential_decay_length_penalty", (1.5, 1.1), ACCEPTS),
    ("exponential_decay_length_penalty", (1, "x"), TypeError),
    ("exponential_decay_length_penalty", (-1, 1.1), ACCEPTS),
    ("exponential_decay_length_penalty", (1, -1.1), ACCEPTS),
    ("exponential_decay_length_penalty", 5, TypeError),
    ("suppress_tokens", [-1], ACCEPTS),
    ("suppress_tokens", [5.5], ACCEPTS),
    ("suppress_tokens", "x", ValueError),
    ("suppress_tokens", "5", ValueError),
    ("begin_suppress_tokens", [-1], ACCEPTS),
    ("begin_suppress_tokens", [5.5], ACCEPTS),
    ("begin_suppress_tokens", "x", ValueError),
]


@pytest.mark.parametrize(("name", "value", "theirs", "sampling"), NUMBERS, ids=str)
def test_a_number_out_of_range(name, value, theirs, sampling):
    assert_refused(
        Case(arguments={name: value, **sampling}, match=f"^{name}={value!r} is not", theirs=theirs)
    )


@pytest.mark.parametrize(("name", "value", "theirs"), STRUCTURED, ids=str)
def test_a_list_that_can_not_be_read(name, value, theirs):
    one = {"input_ids": ONE[:, :1]} if name == "forced_bos_token_id" else {}  # forced after one token
    assert_refused(Case(arguments={name: value, **one}, match=f"^{name}", theirs=theirs))


@pytest.mark.parametrize("name", ["suppress_tokens", "begin_suppress_tokens"])
def test_one_token_in_the_place_of_a_list(name):
    match = f"^{name}=5 is not allowed: {name} must be a list of token ids"
    assert_refused(Case(arguments={name: 5}, match=match, theirs=TypeError))


@pytest.mark.parametrize("name", ["suppress_tokens", "begin_suppress_tokens"])
@pytest.mark.parametrize("tokens", [{3, 4}, range(3, 5)])
def test_other_collections_of_tokens(name, tokens):
    assert_accepted(Case(arguments={name: tokens}, theirs=ACCEPTS))


def test_everything_suppressed():
    """transformers takes the argmax of -inf."""
    case = Case(
        arguments={"suppress_tokens": list(range(VOCAB))},
        raises=dk.EmptySupportError,
        match="suppress_tokens",
        theirs=ACCEPTS,
        late=True,
    )
    assert_refused(case)


# What transformers refuses and decodekit takes: values of another type that mean the same


@pytest.mark.parametrize(
    "arguments",
    [
        {**SAMPLE, "temperature": 2},
        {**SAMPLE, "temperature": 0.0},
        {**SAMPLE, "top_k": 50.0},
        {"repetition_penalty": 2},
        {"encoder_repetition_penalty": 2},
        {"sequence_bias": {(5,): 1}},
        {"sequence_bias": {5: 1.0}},
        {"sequence_bias": [[5, 1.0]]},
        {"bad_words_ids": [5]},
        {"bad_words_ids": [[5.0]]},
    ],
    ids=str,
)
def test_what_means_the_same_is_taken(arguments):
    assert_accepted(Case(arguments=arguments))


def test_a_penalty_of_the_end_where_there_is_none():
    arguments = {"exponential_decay_length_penalty": (1, 1.1), "eos_token_id": None}
    assert_accepted(Case(arguments=arguments, theirs=RuntimeError))


@pytest.mark.parametrize(
    "arguments",
    [
        {**SAMPLE, "top_p": 0.0},
        {**SAMPLE, "top_p": 1},
        {**SAMPLE, "epsilon_cutoff": 1.0},
        {**SAMPLE, "eta_cutoff": 1.0},
        {**SAMPLE, "temperature": None},
        {"guidance_scale": 0},
        {"guidance_scale": -1.0},
        {"min_new_tokens": 2, "eos_token_id": None},
        {"suppress_tokens": [99]},
    ],
    ids=str,
)
def test_ends_of_ranges(arguments):
    assert_accepted(Case(arguments=arguments, theirs=ACCEPTS))

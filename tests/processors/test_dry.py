import pytest
import torch
from decodekit import CallContext, History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit_processors.dry import DRY
from hypothesis import given
from hypothesis import strategies as st


def longest_match(tokens, follower, breakers):
    """By trying every place and every length, no longer than what follows the last breaker."""
    ends = [i + len(b) for b in breakers for i in range(len(tokens)) if tokens[i : i + len(b)] == b]
    most, longest = len(tokens) - max(ends, default=0), 0
    for place in range(1, len(tokens)):
        for size in range(1, min(place, most) + 1):
            if tokens[place] == follower and tokens[place - size : place] == tokens[len(tokens) - size :]:
                longest = max(longest, size)
    return longest


def oracle(row: OracleRow, multiplier, base, allowed_length, window, breakers=(), breaker_ids=()):
    tokens, breakers = row.tokens[-window:], [list(sequence) for sequence in breaker_ids]
    result = []
    for i, x in enumerate(row.logits):
        length = 0 if [i] in breakers else longest_match(tokens, i, breakers)
        penalty = multiplier * base ** (length - allowed_length) if length >= allowed_length else 0
        result.append(x - min(penalty, 1e6))
    return result


CHECKS = dict(processor_checks(DRY, oracle=oracle))
BREAKERS = [
    {"allowed_length": 1, "breaker_ids": [[1]]},
    {"allowed_length": 1, "breaker_ids": [[1, 0], [2]], "window": 9},
    {"allowed_length": 1, "base": 1.0, "multiplier": 3.0},
]
OFTEN = dict(processor_checks(DRY, oracle=oracle, examples=BREAKERS))
SOME = [name for name in OFTEN if not name.startswith("P10")]  # breakers keep their ids


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@pytest.mark.parametrize("name", SOME)
def test_conforms_with_breakers(name):
    OFTEN[name]()


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=30),
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=2), max_size=2),
)
def test_finds_what_a_search_through_all_places_finds(tokens, breakers):
    processor = DRY(1.0, 2.0, 1, breaker_ids=breakers).bind(CallContext(vocab_size=3))
    row = OracleRow([0.0] * 3, tokens, len(tokens), ())
    out = processor(torch.zeros(1, 3, dtype=torch.float64), History.of([tokens]))
    assert out[0].tolist() == oracle(row, 1.0, 2.0, 1, 0, (), breakers)


@pytest.mark.parametrize(
    ("tokens", "penalty"),
    [
        ([1, 2, 3, 1], 0),  # a match of one is allowed
        ([1, 2, 3, 1, 2], 0.8),
        ([0, 1, 2, 3, 0, 1, 2], 0.8 * 1.75),
        ([0, 1, 2, 4, 0, 1, 3], 0),
    ],
)
def test_each_token_more_multiplies_the_penalty(tokens, penalty):
    out = DRY()(torch.zeros(1, 5), History.of([tokens]))
    assert out[0].tolist() == pytest.approx([0, 0, 0, -penalty, 0])


def test_the_window_cuts_off_what_lies_before():
    tokens = [1, 2, 3, 0, 0, 1, 2]
    x = torch.zeros(1, 4)
    assert DRY(window=7)(x, History.of([tokens]))[0, 3] < 0
    assert DRY(window=6)(x, History.of([tokens]))[0, 3] == 0


def test_a_very_long_repetition_does_not_overflow():
    out = DRY()(torch.zeros(1, 2), History.of([[1] * 10_000]))
    assert out.tolist() == [[0.0, -1e6]]


class Letters:
    """A tokenizer of one token a letter."""

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return [ord(letter) - ord("a") for letter in text]


def test_texts_are_bound_through_the_tokenizer():
    context = CallContext(vocab_size=26, tokenizer=Letters())
    history, x = History.of([Letters().encode("abcdeabcd", add_special_tokens=False)]), torch.zeros(1, 26)
    assert DRY(breakers=("ab",)).bind(context)(x, history)[0, 4] == pytest.approx(-0.8)
    assert DRY(breakers=("b", "c")).bind(context)(x, history)[0, 4] == 0
    assert DRY(breakers=("b",)).bind(context).describe() == "dry(breakers=('b',))"


def test_texts_without_a_tokenizer_are_refused():
    with pytest.raises(ParameterError, match=r"breakers=\('x',\).*pass tokenizer="):
        DRY(breakers=("x",)).bind(CallContext(vocab_size=26))


@pytest.mark.parametrize("values", [{"breakers": ("",)}, {"breaker_ids": ((),)}])
def test_an_empty_breaker_is_refused(values):
    with pytest.raises(ParameterError, match="at least one token"):
        DRY(**values).bind(CallContext(vocab_size=26, tokenizer=Letters()))

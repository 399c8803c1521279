"""Parameters: intervals, checks, reading from text, and building by name."""

import math

import attrs
import numpy as np
import pytest
import torch
from decodekit import ParameterError, param, params_of
from decodekit.params import Interval, build
from hypothesis import assume, given
from hypothesis import strategies as st

numbers = st.floats(allow_nan=False) | st.integers(-(10**20), 10**20)


@attrs.frozen
class Knobs:
    """A class with a parameter of every type."""

    NAME = "knobs"
    rate: float = param(0.5, range="(0, 1]", neutral=1.0, help="How much.")
    count: int = param(3, range="[0, inf)", help="How many.")
    loud: bool = param(False, help="Whether to shout.")
    mode: str = param("soft", choices=("soft", "hard"), help="How.")
    limit: float | None = param(None, range="[0, inf)", help="Where to stop.")
    breakers: tuple[int, ...] = param((), help="Where to cut.")
    _bound: int = 0


@attrs.frozen
class Needy:
    """A class with a required parameter."""

    NAME = "needy"
    size: int = param(range="[1, 9]", help="Give its size.")


KNOBS = params_of(Knobs)


@given(numbers, numbers, st.booleans(), st.booleans(), numbers)
def test_an_interval_contains_what_mathematics_says(low, high, low_open, high_open, value):
    text = f"{'(' if low_open else '['}{low!r}, {high!r}{')' if high_open else ']'}"
    interval = Interval.parse(text)
    above = float(low) < value or (not low_open and float(low) == value)
    below = value < float(high) or (not high_open and value == float(high))
    assert (value in interval) == (above and below)
    assert interval.text == text


def test_nan_and_what_is_no_number_are_in_no_interval():
    everything = Interval.parse("[-inf, inf]")
    assert math.inf in everything
    assert 10**400 in everything
    assert math.nan not in everything
    assert "1" not in everything


@pytest.mark.parametrize("text", ["", "0, 1", "(0 1)", "(0, 1", "{0, 1}", "(0, 1, 2)", "(a, b)"])
def test_what_is_no_interval_is_refused_when_the_class_is_defined(text):
    with pytest.raises(ValueError, match=r"is not an interval|could not convert"):
        Interval.parse(text)


@given(st.integers(0))
def test_an_integral_float_is_taken_for_an_int_and_an_int_for_a_float(value):
    assert type(KNOBS["count"].check(value)) is int
    assert KNOBS["count"].check(value) == value
    assume(float(value).is_integer() and value < 2**53)
    assert KNOBS["count"].check(float(value)) == value
    assert type(KNOBS["limit"].check(value)) is float


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", 0.0),
        ("rate", 1.5),
        ("rate", math.nan),
        ("rate", True),
        ("rate", "half"),
        ("rate", None),
        ("count", -1),
        ("count", 2.5),
        ("count", math.inf),
        ("count", math.nan),
        ("count", False),
        ("loud", 1),
        ("mode", "loud"),
        ("mode", 3),
        ("limit", -1.0),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed_and_the_help(name, value):
    with pytest.raises(ParameterError) as error:
        Knobs(**{name: value})
    text = str(error.value)
    assert text.startswith(f"{name}={value!r} is not allowed: {name} must be {KNOBS[name].allowed}. ")
    assert text.endswith(KNOBS[name].help)


def test_none_is_allowed_where_the_type_says_so():
    assert Knobs(limit=None).limit is None
    assert KNOBS["limit"].from_text("None") is None


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "rate": st.floats(0, 1, exclude_min=True),
            "count": st.integers(0),
            "loud": st.booleans(),
            "mode": st.sampled_from(["soft", "hard"]),
            "limit": st.none() | st.floats(0, allow_infinity=False),
            "breakers": st.lists(st.integers()).map(tuple),
        },
    )
)
def test_what_is_printed_is_read_back(values):
    def text(value):
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    assert build(Knobs, {name: text(value) for name, value in values.items()}) == Knobs(**values)


def test_a_long_seed_keeps_all_its_digits():
    assert KNOBS["count"].from_text(str(2**53 + 1)) == 2**53 + 1
    assert KNOBS["count"].from_text("1e3") == 1000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rate", "x"),
        ("rate", "nan"),
        ("count", "2.5"),
        ("count", "many"),
        ("loud", "maybe"),
        ("breakers", "1,x"),
    ],
)
def test_a_text_that_cannot_be_read_is_a_bad_value(name, text):
    with pytest.raises(ParameterError, match=f"^{name}="):
        KNOBS[name].from_text(text)


@attrs.frozen
class Nested:
    """A class with parameters that hold others."""

    NAME = "nested"
    words: tuple[tuple[int, ...], ...] = param((), help="Lists of ids.")
    bias: tuple[tuple[tuple[int, ...], float], ...] = param((), help="Pairs of ids and number.")
    start: tuple[int, float] = param((0, 1.0), help="Where, and how much.")


@pytest.mark.parametrize(
    ("name", "given", "text", "value"),
    [
        ("words", [[1, 2], [3]], "[[1, 2], [3]]", ((1, 2), (3,))),
        ("words", [4, (5,)], "4, [5]", ((4,), (5,))),
        ("bias", {(1, 2): 3, (4,): 0.5}, "[[[1, 2], 3], [[4], 0.5]]", (((1, 2), 3.0), ((4,), 0.5))),
        ("bias", [[[7], -1.0]], "[[[7], -1]]", (((7,), -1.0),)),
        ("start", [5, 2], "5, 2", (5, 2.0)),
    ],
)
def test_tuples_of_tuples_are_taken_from_lists_mappings_and_texts(name, given, text, value):
    assert getattr(Nested(**{name: given}), name) == value
    assert getattr(build(Nested, {name: text}), name) == value


@pytest.mark.parametrize("values", [{(1, 2)}, frozenset({(1, 2)}), [range(1, 3)]])
def test_sets_and_ranges_are_taken_for_tuples(values):
    assert Nested(words=values).words == ((1, 2),)


def test_numbers_and_arrays_of_numpy_and_torch_are_taken():
    assert Nested(words=torch.tensor([[1, 2], [3, 4]])).words == ((1, 2), (3, 4))
    assert Nested(words=[[np.int64(3)]]).words == ((3,),)
    assert Knobs(rate=torch.tensor(0.5), count=np.int32(4)) == Knobs(rate=0.5, count=4)
    with pytest.raises(ParameterError, match="count="):
        Knobs(count=torch.tensor([1]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("words", [[1.5]]),
        ("words", "ab"),
        ("words", [[[1]]]),
        ("words", [None]),
        ("bias", [[[1], "x"]]),
        ("bias", [[[1], 1.0, 2.0]]),
        ("bias", {1: None}),
        ("start", 5),
        ("start", [1, 2, 3]),
    ],
)
def test_tuples_of_other_shapes_are_refused(name, value):
    with pytest.raises(ParameterError, match=f"^{name}="):
        Nested(**{name: value})


def test_what_is_known_of_a_parameter():
    assert list(KNOBS) == ["rate", "count", "loud", "mode", "limit", "breakers"]
    assert [info.allowed for info in KNOBS.values()][:5] == [
        "float in (0, 1]",
        "int in [0, inf)",
        "bool",
        "one of 'soft', 'hard'",
        "float in [0, inf)",
    ]
    assert KNOBS["rate"].neutral == 1.0
    assert KNOBS["count"].neutral is attrs.NOTHING
    assert params_of(Needy)["size"].required
    assert not KNOBS["rate"].required
    assert params_of(int) == {}


@given(st.text(min_size=1).filter(lambda name: name not in KNOBS))
def test_an_unknown_parameter_is_named_with_all_that_there_are(name):
    with pytest.raises(ParameterError) as error:
        build(Knobs, {name: 1})
    known = "rate, count, loud, mode, limit, breakers"
    assert str(error.value).startswith(f"plugin 'knobs' has no parameter {name!r}; its parameters: {known}.")


@given(st.sampled_from(list(KNOBS)), st.data())
def test_a_slip_of_the_pen_has_its_near_miss(name, data):
    place = data.draw(st.integers(0, len(name) - 1))
    with pytest.raises(ParameterError, match=rf"Did you mean .*'{name}'"):
        build(Knobs, {name[:place] + "_" + name[place:]: 1})


def test_what_has_no_parameters_says_so_with_its_kind():
    with pytest.raises(ParameterError) as error:
        build(int, {"size": 4}, "quantization backend")
    assert str(error.value) == "quantization backend 'int' takes no parameters: leave 'size' out"


def test_a_missing_parameter_is_named_with_its_help():
    with pytest.raises(ParameterError, match=r"plugin 'needy' needs size: Give its size\."):
        build(Needy, {})
    assert build(Needy, {"size": 4}) == Needy(4)

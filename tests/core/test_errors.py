"""Every error is a DecodekitError and the built-in that a reader would catch."""

import pytest
from decodekit import errors
from decodekit.errors import DecodekitError, nearest

BUILT_INS = {
    "CapabilityError": ValueError,
    "DamagedCacheError": OSError,
    "DuplicateNameError": LookupError,
    "EmptySupportError": ValueError,
    "MissingLibraryError": ImportError,
    "ModelNotFoundError": OSError,
    "ModelTooLargeError": MemoryError,
    "NonFiniteLogitsError": ArithmeticError,
    "OutputError": OSError,
    "ParameterError": ValueError,
    "PluginError": ImportError,
    "TrustError": PermissionError,
    "UnknownNameError": LookupError,
    "UnsupportedArgumentError": ValueError,
}


def test_every_error_has_its_built_in():
    public = {getattr(errors, name) for name in errors.__all__ if name.endswith("Error")}
    assert {error.__name__ for error in public} == {"DecodekitError", *BUILT_INS}
    for name, built_in in BUILT_INS.items():
        assert issubclass(getattr(errors, name), (DecodekitError,))
        assert issubclass(getattr(errors, name), (built_in,))


@pytest.mark.parametrize("name", BUILT_INS)
def test_the_message_is_shown_as_it_was_written(name):
    assert str(getattr(errors, name)("no 'x': try 'y'")) == "no 'x': try 'y'"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("min-p", " Did you mean 'min_p'?"),
        ("topp", " Did you mean 'top_p'?"),
        ("top", " Did you mean 'top_k' or 'top_p'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_near_misses_are_suggested_best_first(name, hint):
    assert nearest(name, ["top_k", "top_p", "min_p"]) == hint


FIELDS = ["use_mtp", "do_sample", "stop_strings", "top_p", "num_beams", "pad_token_id", "temperature", "_own"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temp", " Did you mean 'temperature'?"),
        ("stop", " Did you mean 'stop_strings'?"),
        ("beams", " Did you mean 'num_beams'?"),
        ("tmperature", " Did you mean 'temperature'?"),
        ("Temperature", " Did you mean 'temperature'?"),
        *((nonsense, "") for nonsense in ("trust", "model_name", "load_in_8bit", "banana", "own_", "n")),
    ],
)
def test_what_has_little_in_common_is_not_suggested(name, hint):
    assert nearest(name, FIELDS) == hint


def test_nothing_known_suggests_nothing():
    assert nearest("top_p", iter(())) == ""

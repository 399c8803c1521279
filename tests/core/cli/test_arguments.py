import io
import sys

import pytest
from decodekit import ParameterError
from decodekit.cli.arguments import read_prompt, read_settings, read_spec
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="=", codec="utf-8"), max_size=8)


def test_a_prompt_is_needed_on_a_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)

    with pytest.raises(ParameterError, match="--file FILE, or pipe"):
        read_prompt(None, None)


def test_a_prompt_must_be_text(tmp_path):
    (tmp_path / "image.png").write_bytes(b"\x89PNG")

    with pytest.raises(ParameterError, match=r"image\.png is not UTF-8 text: .* at byte 0"):
        read_prompt(None, tmp_path / "image.png")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.7", 0.7),
        ("3", 3),
        ("true", True),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ("a b", "a b"),
        ("x=y", "x=y"),
        ("", ""),
    ],
)
def test_settings_are_read_as_python_values(text, value):
    (found,) = read_settings([f"name={text}"]).values()

    assert (found, type(found)) == (value, type(value))


def test_the_last_of_two_settings_counts():
    assert read_settings(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}


@given(NAMES, st.dictionaries(NAMES, VALUES, max_size=4))
def test_a_spec_is_read_back_as_it_was_written(name, values):
    written = ",".join(f"{key}={value}" for key, value in values.items())

    assert read_spec(f"{name}:{written}" if values else name) == (name, values)

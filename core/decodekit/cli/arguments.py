"""Reading what the command line gives as text: prompts, ``name=value`` and ``NAME:key=value``."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from decodekit.errors import MissingLibraryError, ParameterError

__all__ = ["check_picture", "read_prompt", "read_settings", "read_spec"]

_OPTIONS = {
    "strategy": "--strategy",
    "processors": "--processor",
    "seed": "--seed",
    "max_new_tokens": "--max-new-tokens",
    "custom_generate": "--custom-generate",
    "compile": "--compile",
}
_PICTURES = (".png", ".svg", ".pdf")
_WORDS = {"true": True, "false": False, "none": None}


def read_prompt(argument: str | None, file: Path | None) -> str:
    """The prompt from the argument, the file, or standard input (``-``, or a pipe).

    The line end that editors and ``echo`` put at the end of a text is dropped.

    Raises:
        ParameterError: there is none, or two, or it is not UTF-8.
    """
    if argument is not None and file is not None:
        message = "there are two prompts: give PROMPT or --file, not both"
        raise ParameterError(message)
    if argument is None and file is None and sys.stdin.isatty():
        message = "there is no prompt: give PROMPT, --file FILE, or pipe a text into the command"
        raise ParameterError(message)
    try:
        if file is not None:
            return file.read_text(encoding="utf-8").removesuffix("\n")
        return sys.stdin.read().removesuffix("\n") if argument in (None, "-") else str(argument)
    except UnicodeDecodeError as error:
        where = file or "standard input"
        message = f"the prompt in {where} is not UTF-8 text: {error.reason} at byte {error.start}"
        raise ParameterError(message) from error


def read_settings(texts: Iterable[str]) -> dict[str, Any]:
    """``name=value`` texts as Python values by name; of a name given twice the last counts.

    Raises:
        ParameterError: a text has another form, or the name has an option of its own.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            message = f"--set {text!r} is not of the form name=value, e.g. --set temperature=0.7"
            raise ParameterError(message)
        if name in _OPTIONS:
            message = f"--set {text!r} is not allowed: use {_OPTIONS[name]}"
            raise ParameterError(message)
        settings[name] = _value(value)
    return settings


def read_spec(text: str) -> tuple[str, dict[str, str]]:
    """``NAME`` or ``NAME:key=value,key=value`` as a name and its parameters, for `Registry.resolve`.

    A comma that no ``key=`` follows belongs to the value before it.

    Raises:
        ParameterError: the text has another form.
    """
    name, _, rest = text.partition(":")
    values: dict[str, str] = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if equals and key.strip().isidentifier():
            values[key.strip()] = value
        elif values:
            values[next(reversed(values))] += "," + part
        else:
            message = f"{text!r} is not of the form NAME:key=value,key=value, e.g. min_p:min_p=0.05"
            raise ParameterError(message)
    return name, values


def _value(text: str) -> Any:
    """A number, truth value, None or list where the text is one; otherwise the text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_picture(path: Path) -> None:
    """Say what is wrong with the file of ``--plot`` before minutes of measuring.

    Raises:
        ParameterError: the ending is not allowed, or the folder is not there.
        MissingLibraryError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _PICTURES:
        message = f"--plot {path} is not allowed: the name must end with one of {', '.join(_PICTURES)}"
        raise ParameterError(message)
    if not path.absolute().parent.is_dir():
        message = f"--plot {path}: there is no folder {path.absolute().parent}; make it first"
        raise ParameterError(message)
    try:
        import matplotlib  # noqa: F401  # only to know early
    except ImportError as error:
        message = "--plot needs the library matplotlib: pip install 'decodekit-core[plot]'"
        raise MissingLibraryError(message) from error

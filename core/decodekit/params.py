"""Parameters of plugins: one place for name, type, default, range and help.

`param` makes an attrs field that knows its range. The constructor's checks, the error messages,
the command line's help and the tables of the docs are all generated from that field.
"""

import functools
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import attrs

from decodekit.errors import ParameterError, nearest

__all__ = ["Interval", "ParamInfo", "build", "param", "params_of"]

_KEY = "decodekit"
_DIGITS = re.compile(r"^\s*[+-]?\d+\s*$")
_INTERVAL = re.compile(r"^([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])$")


@attrs.frozen
class Interval:
    """A set of numbers between two ends, written as in mathematics: ``"(0, 1]"``."""

    text: str
    low: float
    high: float
    low_open: bool
    high_open: bool

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Read ``"[0, inf)"`` and the like; a text of another form is a ValueError."""
        match = _INTERVAL.match(text)
        if match is None:
            message = f"range={text!r} is not an interval such as '(0, 1]' or '[1, inf)'"
            raise ValueError(message)
        left, low, high, right = match.groups()
        return cls(text, float(low), float(high), left == "(", right == ")")

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, (int, float)):
            return False
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below


@attrs.frozen
class ParamInfo:
    """What is known of one parameter of a plugin class."""

    name: str
    type: Any
    type_name: str
    default: Any
    range: Interval | None
    choices: tuple[Any, ...] | None
    neutral: Any
    help: str

    @property
    def required(self) -> bool:
        """Whether the parameter has no default."""
        return self.default is attrs.NOTHING

    @property
    def allowed(self) -> str:
        """The allowed values in words, for messages and tables."""
        if self.choices is not None:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        return f"{self.type_name} in {self.range.text}" if self.range else self.type_name

    def check(self, value: Any) -> Any:
        """Return ``value`` in the parameter's own type, or raise `ParameterError`.

        An integral float is taken for an int and an int for a float; a bool is never a number. Lists, sets,
        ranges and arrays are taken for tuples, a mapping for its pairs, a single item for a tuple of one.
        """
        if value is None and type(None) in typing.get_args(self.type):
            return None
        try:
            value = _convert(plain_type(self.type), value)
        except ValueError:
            raise ParameterError(self._complaint(value)) from None
        for allowed in (self.choices, self.range):
            if allowed is not None and value not in allowed:
                raise ParameterError(self._complaint(value))
        return value

    def _complaint(self, value: Any) -> str:
        return (
            f"{self.name}={value!r} is not allowed: {self.name} must be {self.allowed}. {self.help}".strip()
        )

    def from_text(self, text: str) -> Any:
        """Read the parameter from the command line's text and check it."""
        kind = plain_type(self.type)
        if text.lower() in ("none", "null") and type(None) in typing.get_args(self.type):
            return None
        try:
            value = _read(kind, text)
        except ValueError:
            raise ParameterError(self._complaint(text)) from None
        return self.check(value)


def _convert(kind: Any, value: Any) -> Any:
    """The value in the type, or a ValueError."""
    value = value.tolist() if hasattr(value, "tolist") else value  # of numpy and torch
    if typing.get_origin(kind) is tuple:
        return _items(typing.get_args(kind), value)
    if kind not in (int, float, bool, str):
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    if kind is int and number and (isinstance(value, int) or value.is_integer()):
        return int(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    raise ValueError


def _items(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    items = tuple(value.items()) if isinstance(value, Mapping) else value
    items = tuple(items) if isinstance(items, (tuple, list, set, frozenset, range)) else (items,)
    kinds = kinds[:1] * len(items) if kinds[-1] is Ellipsis else kinds
    if len(kinds) != len(items):
        raise ValueError
    return tuple(_convert(kind, item) for kind, item in zip(kinds, items, strict=True))


def _read(kind: Any, text: str) -> Any:
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            message = "not a truth value"
            raise ValueError(message)
        return words[text.lower()]
    if kind is int and _DIGITS.match(text):
        return int(text)  # by way of float a long seed would lose its last digits
    if kind in (int, float):
        return float(text)
    if typing.get_origin(kind) is tuple:
        if str in typing.get_args(kind):
            return [part for part in text.split(",") if part]
        return json.loads(text if text.startswith("[") else f"[{text}]")
    return text


def plain_type(hint: Any) -> Any:
    """``float`` for ``float | None``: the one type behind an optional hint."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return inner[0] if len(inner) == 1 else hint
    return hint


def param(
    default: Any = attrs.NOTHING,
    *,
    range: str | None = None,  # the word that docs and tables use
    choices: tuple[Any, ...] | None = None,
    neutral: Any = attrs.NOTHING,
    help: str,  # the word that command lines use
) -> Any:
    """Declare a parameter of a plugin class (an attrs field).

    Args:
        default: the value when none is given; left out, the parameter is required.
        range: the allowed numbers as an interval, e.g. ``"(0, 1]"``.
        choices: the allowed values, when they are few.
        neutral: the value at which the plugin changes nothing; chains drop it there.
        help: one sentence, with the unit and the next step after a bad value.

    Raises:
        ValueError: ``range`` is not an interval (when the class is defined).
    """
    spec = {
        "range": Interval.parse(range) if range else None,
        "choices": choices,
        "neutral": neutral,
        "help": help,
    }
    return attrs.field(
        default=default,
        metadata={_KEY: spec},
        converter=attrs.Converter(_checked, takes_self=True, takes_field=True),
    )


def _checked(value: Any, instance: Any, field: "attrs.Attribute[Any]") -> Any:
    return params_of(type(instance))[field.name].check(value)


def params_of(cls: type) -> dict[str, ParamInfo]:
    """The parameters of a plugin class by name, in the order of its constructor.

    A field whose name starts with an underscore is the class's own (e.g. filled in by `bind`).
    """
    return _params_of(cls)


@functools.cache
def _params_of(cls: type) -> dict[str, ParamInfo]:
    if not attrs.has(cls):
        return {}
    hints = typing.get_type_hints(cls)
    own = [field for field in attrs.fields(cls) if field.init and not field.name.startswith("_")]
    return {field.name: _info(field, hints.get(field.name, Any)) for field in own}


def _info(field: "attrs.Attribute[Any]", hint: Any) -> ParamInfo:
    spec = field.metadata.get(_KEY, {"range": None, "choices": None, "neutral": attrs.NOTHING, "help": ""})
    plain = plain_type(hint)
    type_name = plain.__name__ if isinstance(plain, type) and not typing.get_args(plain) else str(plain)
    return ParamInfo(field.name, hint, type_name, field.default, **spec)


def build(cls: type, values: Mapping[str, Any], noun: str = "plugin") -> Any:
    """Make an instance of ``cls`` from parameter values by name.

    Texts are read as the command line would; an unknown or missing parameter is named, with the
    nearest known one.

    Args:
        cls: the class.
        values: its parameters.
        noun: what messages call its kind.

    Raises:
        ParameterError: a name is unknown or missing, or a value is not allowed.
    """
    infos = params_of(cls)
    name = f"{noun} {getattr(cls, 'NAME', cls.__name__)!r}"
    for key in values:
        if not infos:
            message = f"{name} takes no parameters: leave {key!r} out"
            raise ParameterError(message)
        if key not in infos:
            message = (
                f"{name} has no parameter {key!r}; its parameters: {', '.join(infos)}.{nearest(key, infos)}"
            )
            raise ParameterError(message)
    missing = [key for key, info in infos.items() if info.required and key not in values]
    if missing:
        message = f"{name} needs {', '.join(missing)}: {infos[missing[0]].help}"
        raise ParameterError(message)
    read = {
        key: infos[key].from_text(value) if isinstance(value, str) else value for key, value in values.items()
    }
    return cls(**read)

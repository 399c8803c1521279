"""What a class must fulfil to be a plugin, said when it is registered and not at token 500."""

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any, Literal

import attrs

from decodekit.drafter import Drafter
from decodekit.errors import ParameterError, PluginError
from decodekit.params import param, params_of
from decodekit.processor import API_VERSION, Processor, StatefulProcessor
from decodekit.quant_backend import QuantBackend
from decodekit.strategy import Strategy

__all__ = ["BASES", "NOUNS", "Kind", "check_class", "from_function", "kind_of"]

Kind = Literal["strategies", "drafters", "processors", "quant_backends"]
BASES: dict[Kind, type] = {
    "strategies": Strategy,
    "drafters": Drafter,
    "processors": Processor,
    "quant_backends": QuantBackend,
}
NOUNS: dict[Kind, str] = {
    "strategies": "strategy",
    "drafters": "drafter",
    "processors": "processor",
    "quant_backends": "quantization backend",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MUST_DEFINE: dict[type, tuple[str, ...]] = {
    Strategy: ("step",),
    Drafter: ("draft",),
    StatefulProcessor: ("init", "advance", "process"),
    Processor: ("__call__",),
    QuantBackend: (),
}
_Field = type(attrs.field())


@attrs.frozen
class _Frozen:
    """What a frozen attrs class looks like: all of them share one ``__setattr__``."""


def kind_of(cls: type) -> Kind | None:
    """The kind of plugin that a class is, by its base class; None when it is none."""
    return next((kind for kind, base in BASES.items() if issubclass(cls, base)), None)


def check_class(kind: Kind, cls: Any) -> Any:
    """Return ``cls`` when it is a class that fulfils the contract of its kind.

    Raises:
        PluginError: what is wrong, and what to write instead.
    """
    if not isinstance(cls, type) or not issubclass(cls, BASES[kind]):
        message = f"{cls!r} is not a {NOUNS[kind]}: it must be a subclass of decodekit.{BASES[kind].__name__}"
        raise PluginError(message)
    problem = _name_problem(cls) or _method_problem(cls) or _field_problem(cls) or _default_problem(cls)
    if problem:
        message = f"{cls.__module__}.{cls.__qualname__} {problem}"
        raise PluginError(message)
    return cls


def _name_problem(cls: Any) -> str | None:
    if not cls.NAME:
        return 'has no NAME: write NAME = "my_name" in the class'
    if not isinstance(cls.NAME, str) or not _NAME.fullmatch(cls.NAME):
        return f"has NAME={cls.NAME!r}: a name is made of ASCII letters, digits, '_', '-' and '.'"
    if cls.API_VERSION != API_VERSION:
        return (
            f"is written for API_VERSION={cls.API_VERSION!r} and this decodekit has {API_VERSION}: "
            "install versions of the two that fit"
        )
    return None


def _method_problem(cls: type) -> str | None:
    base = next(base for base in _MUST_DEFINE if issubclass(cls, base))
    missing = [name for name in _MUST_DEFINE[base] if getattr(cls, name) is getattr(base, name)]
    return f"must define {', '.join(missing)} (see decodekit.{base.__name__})" if missing else None


def _field_problem(cls: Any) -> str | None:
    if any(isinstance(value, _Field) for value in vars(cls).values()):
        return "declares parameters and is not decorated: write @attrs.frozen above the class"
    if not attrs.has(cls):
        own = cls.__init__ is not object.__init__
        return "has an __init__: declare its parameters as fields of an @attrs.frozen class" if own else None
    if attrs.fields(cls) and cls.__setattr__ is not _Frozen.__setattr__:
        return "can be changed after it is made: write @attrs.frozen instead of @attrs.define"
    base = next(base for base in _MUST_DEFINE if issubclass(cls, base))
    taken = [field.name for field in attrs.fields(cls) if hasattr(base, field.name)]
    return f"has a parameter {taken[0]!r}, which is a name of decodekit.{base.__name__}" if taken else None


def _default_problem(cls: type) -> str | None:
    """A default outside its own range would only be seen by the first user of the class."""
    try:
        for info in params_of(cls).values():
            if not info.required and not isinstance(info.default, attrs.Factory):  # type: ignore[arg-type]  # a class
                info.check(info.default)
    except ParameterError as error:
        return f"has a default that it refuses: {error}"
    except (NameError, TypeError) as error:
        return f"has a type hint that can't be read: {error}"
    return None


def from_function(function: Callable[..., Any]) -> type[Processor]:
    """Make a `Processor` class of a function ``(logits, history, **parameters) -> logits``.

    The class has the function's name, docstring and module; the arguments after ``history`` become
    its parameters, with their defaults (a value, or `decodekit.param` with a range and help).

    Raises:
        PluginError: the signature is another one.
    """
    defaults = _defaults(function)
    hints = _hints(function)

    def call(self: Any, logits: Any, history: Any) -> Any:
        return function(logits, history, **{name: getattr(self, name) for name in defaults})

    body: dict[str, Any] = {name: _field(default) for name, default in defaults.items()}
    body |= {name: getattr(function, name) for name in ("__doc__", "__module__", "__qualname__")}
    body |= {"NAME": function.__name__, "__call__": call}
    body["__annotations__"] = {name: hints.get(name, _type(value)) for name, value in defaults.items()}
    try:
        return attrs.frozen(type(function.__name__, (Processor,), body))
    except ValueError as error:  # attrs: a required parameter after one with a default
        message = f"{function.__name__} can't become a processor: {error}"
        raise PluginError(message) from error


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments after ``(logits, history)`` with their defaults."""
    signature = inspect.signature(function)
    arguments = list(signature.parameters.values())
    first, rest = arguments[:2], arguments[2:]
    given = len(first) == 2 and all(item.kind <= item.POSITIONAL_OR_KEYWORD for item in first)
    named = all(item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY) for item in rest)
    if not given or not named or any(item.default is item.empty for item in rest):
        message = (
            f"{function.__name__}{signature} can't become a processor: it must take (logits, history) "
            "and, after them, only arguments with a default"
        )
        raise PluginError(message)
    return {item.name: item.default for item in rest}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        message = f"{function.__name__} has a type hint that can't be read: {error}"
        raise PluginError(message) from error


def _field(default: Any) -> Any:
    return default if isinstance(default, _Field) else param(default, help="")


def _type(default: Any) -> Any:
    """The type of an argument without a hint: that of its default."""
    return Any if default is None or isinstance(default, _Field) else type(default)

"""The registry: which plugins are installed, what they bring, and what is wrong with them."""

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from torch import Tensor

from decodekit.contract import BASES, NOUNS, Kind, check_class, from_function, kind_of
from decodekit.discovery import Discovered, discover
from decodekit.entry import Catalogue, Entry, PluginFailure
from decodekit.errors import DuplicateNameError, ParameterError, PluginError, UnknownNameError, nearest
from decodekit.params import build
from decodekit.processor import Processor

__all__ = [
    "Registry",
    "drafters",
    "processors",
    "quant_backends",
    "register",
    "registry",
    "resolve",
    "strategies",
]

_Class = TypeVar("_Class", bound=type)


class Registry:
    """What is installed, by kind and name; an ordinary object that loads at the first question.

    Args:
        discover: load the entry points of the group ``decodekit``; without, the registry starts empty.
    """

    def __init__(self, discover: bool = True) -> None:
        self._found = None if discover else Discovered()
        self._loading = False
        self._lock = threading.RLock()
        self._local: dict[tuple[Kind, str, str], Entry] = {}

    def _load(self) -> Discovered:
        with self._lock:
            if self._loading:
                message = "a plugin asked the registry for plugins while it was being loaded itself"
                raise PluginError(message)
            if self._found is None:
                self._loading = True
                try:
                    self._found = discover()
                finally:
                    self._loading = False
            return self._found

    @property
    def failures(self) -> list[PluginFailure]:
        """What could not be loaded, in the order of loading."""
        return list(self._load().failures)

    @property
    def disabled(self) -> dict[str, str]:
        """The plugins that the user keeps out, as ``distribution:entry-point`` -> what keeps it out."""
        return dict(self._load().disabled)

    def entries(self, kind: Kind) -> dict[str, list[Entry]]:
        """Every entry of a kind by name, sorted; a list of more than one is a clash of names.

        Raises:
            ParameterError: there is no such kind.
            PluginError: a plugin is broken and DECODEKIT_STRICT_PLUGINS is set.
        """
        if kind not in BASES:
            message = (
                f"kind={kind!r} is not allowed: it must be one of {', '.join(BASES)}.{nearest(kind, BASES)}"
            )
            raise ParameterError(message)
        found: dict[str, list[Entry]] = {}
        for entry in [*self._load().entries, *self._local.values()]:
            if entry.kind == kind:
                same = found.setdefault(entry.name, [])
                if all(entry.cls is not other.cls for other in same):
                    same.append(entry)
        return dict(sorted(found.items()))

    def entry(self, kind: Kind, name: str) -> Entry:
        """The entry of a name.

        Raises:
            UnknownNameError: nothing of that kind has the name; the message has the nearest ones.
            DuplicateNameError: several plugins have it; the message names them.
        """
        known = self.entries(kind)
        if name not in known:
            raise UnknownNameError(self._unknown(kind, name, known))
        if len(known[name]) > 1:
            message = (
                f"several plugins claim the {NOUNS[kind]} {name!r}: {', '.join(map(str, known[name]))}. "
                "Uninstall one, keep it out (decodekit plugins disable NAME), or pass the class itself"
            )
            raise DuplicateNameError(message)
        return known[name][0]

    def _unknown(self, kind: Kind, name: str, known: Mapping[str, object]) -> str:
        installed = ", ".join(known) or "none"
        lines = [f"there is no {NOUNS[kind]} {name!r}.{nearest(name, known)} Installed: {installed}."]
        lines += [f"{name!r} is a {NOUNS[other]}." for other in BASES if name in self.entries(other)]
        lines += [f"Not loaded: {failure}" for failure in self.failures]
        lines += [f"Kept out by {what}: {key}" for key, what in self.disabled.items()]
        return "\n".join(lines)

    def catalogue(self, kind: Kind) -> Catalogue:
        """What is installed of a kind, name -> `Entry`; it prints as a list for people."""
        return Catalogue(self.entries(kind), self.failures, functools.partial(self.entry, kind))

    def resolve(self, kind: Kind, spec: Any) -> Any:
        """An instance from a name, a pair ``(name, {parameter: value})``, a class, or an instance.

        Raises:
            ParameterError: ``spec`` is something else, or a parameter's value is not allowed.
            PluginError: a class breaks the contract of its kind.
        """
        what, values = spec, {}
        if isinstance(spec, (tuple, list)) and len(spec) == 2 and isinstance(spec[1], Mapping):
            what, values = spec
        if isinstance(what, str):
            return build(self.entry(kind, what).cls, values, NOUNS[kind])
        if isinstance(what, type):
            return build(check_class(kind, what), values, NOUNS[kind])
        if isinstance(spec, BASES[kind]):
            check_class(kind, type(spec))
            return spec
        message = (
            f"{spec!r} is not a {NOUNS[kind]}: give a name, a pair (name, {{parameter: value}}), "
            f"or a class or an instance of decodekit.{BASES[kind].__name__}"
        )
        raise ParameterError(message)

    @overload
    def register(self, obj: _Class) -> _Class: ...
    @overload
    def register(self, obj: Callable[..., Tensor]) -> type[Processor]: ...
    def register(self, obj: Any) -> Any:
        """Add a class, or a function ``(logits, history) -> logits``, for this process; a decorator.

        A function becomes, and is returned as, a `Processor` class; its arguments after ``history``
        become parameters. A module may register a name again, which replaces the first: a notebook's
        cell can run twice.

        Raises:
            PluginError: ``obj`` breaks the contract of its kind.
            DuplicateNameError: an installed plugin, or another module of this process, has the name.
        """
        cls = from_function(obj) if inspect.isfunction(obj) else obj
        kind = kind_of(cls) if isinstance(cls, type) else None
        if kind is None:
            bases = ", ".join(f"decodekit.{base.__name__}" for base in BASES.values())
            message = (
                f"{obj!r} can't be registered: give a function (logits, history) or a subclass of {bases}"
            )
            raise PluginError(message)
        entry = Entry(kind, check_class(kind, cls).NAME, cls, "this process", "", cls.__module__)
        self._check_free(entry)
        self._local[kind, entry.name, entry.module] = entry
        return cls

    def _check_free(self, entry: Entry) -> None:
        """Raise `DuplicateNameError` where somebody else has the name; there is no silent priority."""
        if self._loading:  # a plugin registers as it is imported: a clash is told when the name is asked for
            return
        for other in self.entries(entry.kind).get(entry.name, []):
            again = other.distribution == entry.distribution and other.module == entry.module
            if other.cls is not entry.cls and not again:
                message = (
                    f"{entry} can't be registered: the {NOUNS[entry.kind]} {entry.name!r} is {other} "
                    "already. Give it a name of its own, keep the other one out (decodekit plugins disable "
                    "NAME), or pass the class itself instead of registering it"
                )
                raise DuplicateNameError(message)


_REGISTRY = Registry()
register = _REGISTRY.register
resolve = _REGISTRY.resolve


def registry() -> Registry:
    """The registry of this process, which everything in decodekit asks."""
    return _REGISTRY


def strategies() -> Catalogue:
    """The decoding strategies that are installed, name -> `Entry`; print it to read it."""
    return _REGISTRY.catalogue("strategies")


def drafters() -> Catalogue:
    """The drafters that are installed, name -> `Entry`; print it to read it."""
    return _REGISTRY.catalogue("drafters")


def processors() -> Catalogue:
    """The logits processors that are installed, name -> `Entry`; print it to read it."""
    return _REGISTRY.catalogue("processors")


def quant_backends() -> Catalogue:
    """The quantization backends that are installed, name -> `Entry`; print it to read it."""
    return _REGISTRY.catalogue("quant_backends")

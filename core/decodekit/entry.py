"""What the registry tells of a plugin: an entry for what works, a failure for what doesn't."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import attrs

from decodekit.contract import Kind
from decodekit.params import ParamInfo, params_of

__all__ = ["Catalogue", "Entry", "PluginFailure"]


@attrs.frozen
class PluginFailure:
    """Why a plugin, or a part of it, can't be used."""

    distribution: str
    version: str
    entry_point: str
    reason: str
    traceback: str = attrs.field(repr=False)
    missing: str = ""
    """The module that is not installed, when that is the reason."""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry_point}): {self.reason}"


@attrs.frozen
class Entry:
    """One plugin class: what it is called and where it comes from."""

    kind: Kind
    name: str
    cls: type
    distribution: str
    version: str
    module: str

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return inspect.cleandoc(self.cls.__doc__ or "").partition("\n")[0]

    @property
    def params(self) -> dict[str, ParamInfo]:
        """The parameters by name, in the order of the constructor."""
        return params_of(self.cls)

    @property
    def signature(self) -> str:
        """The name with its parameters and defaults: ``min_p(min_p=0.0)``."""
        inner = [name if info.required else f"{name}={info.default!r}" for name, info in self.params.items()]
        return f"{self.name}({', '.join(inner)})"

    @property
    def origin(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}".rstrip()

    def __str__(self) -> str:
        return f"{self.module}.{self.cls.__qualname__} ({self.origin})"


class Catalogue(dict[str, Entry]):
    """Name -> entry, sorted by name; it prints as a list for people.

    A name that several plugins claim is not a key. Asking for it, or for an unknown one, raises the
    error of ``missing`` (the registry's), so that ``processors()["x"]`` says what is wrong.
    """

    def __init__(
        self,
        found: Mapping[str, Sequence[Entry]],
        failures: Sequence[PluginFailure],
        missing: Callable[[str], Entry],
    ) -> None:
        super().__init__({name: entries[0] for name, entries in found.items() if len(entries) == 1})
        self._clashes = {name: entries for name, entries in found.items() if len(entries) > 1}
        self._failures = failures
        self._missing = missing

    def __missing__(self, name: str) -> Entry:
        return self._missing(name)

    def __repr__(self) -> str:
        lines = [
            f"{entry.signature}  [{entry.origin}]\n    {entry.summary}".rstrip() for entry in self.values()
        ]
        lines += [f"{name}  claimed by {' and '.join(map(str, who))}" for name, who in self._clashes.items()]
        lines += [f"not loaded: {failure}" for failure in self._failures]
        return "\n".join(lines) or "nothing is installed"

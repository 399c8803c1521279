"""Finding what is installed: the entry points of the group ``decodekit``, each one isolated.

pluggy's own loader stops at the first broken plugin and drops a second one of the same name. Here
what fails is kept with its reason, and the rest goes on.
"""

import contextlib
import inspect
import os
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import attrs

from decodekit.contract import BASES, Kind, check_class
from decodekit.entry import Entry, PluginFailure
from decodekit.errors import DamagedCacheError, DecodekitError, PluginError, nearest
from decodekit.hookspecs import hooks_of
from decodekit.settings import disabled_plugins, normal_name
from decodekit.trust import check_plugin

__all__ = [
    "DISABLED",
    "STRICT",
    "Discovered",
    "disabled_by_environment",
    "discover",
    "key_of",
    "load_point",
    "names_of",
    "origin_of",
    "points",
]

DISABLED = "DECODEKIT_DISABLED_PLUGINS"
STRICT = "DECODEKIT_STRICT_PLUGINS"
_HOOKS: dict[str, Kind] = {f"register_{kind}": kind for kind in BASES}


@attrs.frozen
class Discovered:
    """What came out of loading: entries, failures, and the plugins that were kept out."""

    entries: list[Entry] = attrs.field(factory=list)
    failures: list[PluginFailure] = attrs.field(factory=list)
    disabled: dict[str, str] = attrs.field(factory=dict)
    """``distribution:entry-point`` -> what keeps it out."""


def discover() -> Discovered:
    """Load every entry point once, in the order of distribution and entry point.

    Raises:
        PluginError: a plugin is broken and DECODEKIT_STRICT_PLUGINS is set.
    """
    found = Discovered()
    off = dict.fromkeys(_switched_off(found), "`decodekit plugins disable`")
    off |= dict.fromkeys(disabled_by_environment(), DISABLED)
    plugins: list[object] = []
    for point in points():
        if reasons := [off[name] for name in sorted(names_of(point) & off.keys())]:
            found.disabled[key_of(point)] = reasons[0]
            continue
        _load(found, point, plugins)
    if found.failures and os.environ.get(STRICT, "").lower() not in ("", "0", "false"):
        message = f"{found.failures[0]} ({STRICT} is set)\n{found.failures[0].traceback}"
        raise PluginError(message)
    return found


def disabled_by_environment() -> set[str]:
    """What the environment variable keeps out, normalised."""
    return {normal_name(key) for key in os.environ.get(DISABLED, "").split(",") if key.strip()}


def load_point(point: EntryPoint) -> Discovered:
    """Load one entry point alone, whether it is kept out or not."""
    found = Discovered()
    _load(found, point, [])
    return found


def _load(found: Discovered, point: EntryPoint, plugins: list[object]) -> None:
    with _isolated(found, point):
        check_plugin(point)
        plugin = point.load()
        if not any(plugin is other for other in plugins):  # two entry points may name one module
            plugins.append(plugin)
            _collect(found, point, plugin)


def _switched_off(found: Discovered) -> list[str]:
    """What the user's settings keep out; damaged settings are told, and keep nothing out."""
    try:
        return disabled_plugins()
    except DamagedCacheError as error:
        found.failures.append(PluginFailure("decodekit-core", "", "settings", str(error), ""))
        return []


def _collect(found: Discovered, point: EntryPoint, plugin: object) -> None:
    """Call the hooks of a plugin; what is wrong costs the hook or the class, not the others."""
    hooks = hooks_of(plugin)
    for name, hook in hooks:
        with _isolated(found, point):
            for cls in _classes(name, hook):
                with _isolated(found, point):
                    found.entries.append(_entry(_HOOKS[name], cls, point))
    marked = [name for name, _ in hooks]
    unmarked = [name for name in _HOOKS if name not in marked and hasattr(plugin, name)]
    if unmarked or not marked:
        subject = f"{' and '.join(unmarked)} is not" if unmarked else "no function of it is"
        message = f"{subject} marked with decodekit.hookimpl, and no other marker counts"
        raise PluginError(message)


def _classes(name: str, hook: Callable[..., Any]) -> list[Any]:
    """The result of a hook; pluggy would pass over an unknown name and an argument with a default."""
    if name not in _HOOKS:
        message = f"there is no hook {name!r}.{nearest(name, _HOOKS)} The hooks: {', '.join(_HOOKS)}"
        raise PluginError(message)
    if arguments := inspect.signature(hook).parameters:
        message = f"{name} takes {', '.join(arguments)}: a hook has no arguments"
        raise PluginError(message)
    classes = hook()
    if not isinstance(classes, (list, tuple)):
        message = f"{name}() returned {classes!r}: it must return a list of classes"
        raise PluginError(message)
    return list(classes)


def _entry(kind: Kind, cls: Any, point: EntryPoint) -> Entry:
    return Entry(kind, check_class(kind, cls).NAME, cls, *origin_of(point), cls.__module__)


@contextlib.contextmanager
def _isolated(found: Discovered, point: EntryPoint) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        text = str(error) if isinstance(error, DecodekitError) else f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
        reason = " ".join(text.split())
        found.failures.append(
            PluginFailure(*origin_of(point), point.name, reason, trace, _missing(error, point))
        )


def _missing(error: BaseException, point: EntryPoint) -> str:
    """The library that is not installed, when that is the reason; the plugin's own modules are none."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    top = (name or "").partition(".")[0]
    return "" if top == point.module.partition(".")[0] else top


def origin_of(point: EntryPoint) -> tuple[str, str]:
    """The distribution of an entry point and its version."""
    return (point.dist.name, point.dist.version) if point.dist else ("unknown distribution", "")


def key_of(point: EntryPoint) -> str:
    """What users call an entry point: ``distribution:entry-point``."""
    return f"{origin_of(point)[0]}:{point.name}"


def points() -> list[EntryPoint]:
    """The entry points of the group, in the order of distribution and name."""
    return sorted(entry_points(group="decodekit"), key=key_of)


def names_of(point: EntryPoint) -> set[str]:
    """The names by which a user can keep it out: the distribution's, and that of the entry point."""
    return {normal_name(origin_of(point)[0]), normal_name(key_of(point))}

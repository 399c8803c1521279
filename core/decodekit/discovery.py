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

__all__ = ["DISABLED", "STRICT", "Discovered", "discover"]

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
    off |= {normal_name(key): DISABLED for key in os.environ.get(DISABLED, "").split(",")}
    plugins: list[object] = []
    for point in sorted(entry_points(group="decodekit"), key=_key):
        names = {normal_name(_origin(point)[0]), normal_name(_key(point))}
        if reasons := [off[name] for name in sorted(names & off.keys())]:
            found.disabled[_key(point)] = reasons[0]
            continue
        with _isolated(found, point):
            check_plugin(point)
            plugin = point.load()
            if not any(plugin is other for other in plugins):  # two entry points may name one module
                plugins.append(plugin)
                _collect(found, point, plugin)
    if found.failures and os.environ.get(STRICT, "").lower() not in ("", "0", "false"):
        message = f"{found.failures[0]} ({STRICT} is set)\n{found.failures[0].traceback}"
        raise PluginError(message)
    return found


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
    return Entry(kind, check_class(kind, cls).NAME, cls, *_origin(point), cls.__module__)


@contextlib.contextmanager
def _isolated(found: Discovered, point: EntryPoint) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        text = str(error) if isinstance(error, DecodekitError) else f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
        found.failures.append(PluginFailure(*_origin(point), point.name, " ".join(text.split()), trace))


def _origin(point: EntryPoint) -> tuple[str, str]:
    """The distribution of an entry point and its version."""
    return (point.dist.name, point.dist.version) if point.dist else ("unknown distribution", "")


def _key(point: EntryPoint) -> str:
    return f"{_origin(point)[0]}:{point.name}"

"""The hooks of decodekit. A plugin implements them with `decodekit.hookimpl`."""

import sys
from collections.abc import Callable
from typing import Any

import pluggy

from decodekit.drafter import Drafter
from decodekit.processor import Processor
from decodekit.quant_backend import QuantBackend
from decodekit.strategy import Strategy

__all__ = ["hookimpl", "hooks_of", "hookspec"]

hookspec = pluggy.HookspecMarker("decodekit")
hookimpl = pluggy.HookimplMarker("decodekit")


@hookspec
def register_strategies() -> list[type[Strategy]]:  # type: ignore[empty-body]  # a specification
    """Return the decoding strategies of this plugin, as classes."""


@hookspec
def register_drafters() -> list[type[Drafter]]:  # type: ignore[empty-body]  # a specification
    """Return the drafters of this plugin, as classes."""


@hookspec
def register_processors() -> list[type[Processor]]:  # type: ignore[empty-body]  # a specification
    """Return the logits processors of this plugin, as classes."""


@hookspec
def register_quant_backends() -> list[type[QuantBackend]]:  # type: ignore[empty-body]  # a specification
    """Return the quantization backends of this plugin, as classes."""


def hooks_of(plugin: object) -> list[tuple[str, Callable[..., Any]]]:
    """The functions of a plugin (a module) that `hookimpl` marks, each with the name of its hook.

    Raises:
        pluggy.PluginValidationError: a function takes an argument that its hook doesn't give.
    """
    manager = pluggy.PluginManager("decodekit")
    manager.add_hookspecs(sys.modules[__name__])
    manager.register(plugin)
    callers = manager.get_hookcallers(plugin) or []
    return [(caller.name, hook.function) for caller in callers for hook in caller.get_hookimpls()]

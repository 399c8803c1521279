"""The hooks of decodekit. A plugin implements them with `decodekit.hookimpl`."""

import pluggy

from decodekit.processor import Processor
from decodekit.quant_backend import QuantBackend
from decodekit.strategy import Strategy

__all__ = ["hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("decodekit")
hookimpl = pluggy.HookimplMarker("decodekit")


@hookspec
def register_strategies() -> list[type[Strategy]]:  # type: ignore[empty-body]  # a specification
    """Return the decoding strategies of this plugin, as classes."""


@hookspec
def register_processors() -> list[type[Processor]]:  # type: ignore[empty-body]  # a specification
    """Return the logits processors of this plugin, as classes."""


@hookspec
def register_quant_backends() -> list[type[QuantBackend]]:  # type: ignore[empty-body]  # a specification
    """Return the quantization backends of this plugin, as classes."""

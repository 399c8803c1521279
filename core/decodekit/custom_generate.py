"""``custom_generate=``: decoding code of others, in every form that transformers knows and in ours.

`read_custom` finds out what the argument is: a strategy, which our own loop runs, or a `CustomLoop`: a
function or a repository of transformers' kind, which runs instead of our loop.
"""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from decodekit.contract import check_class
from decodekit.custom_loop import CustomFunction, CustomLoop, CustomRepo
from decodekit.errors import (
    ParameterError,
    PluginError,
    TrustError,
    UnknownNameError,
    UnsupportedArgumentError,
    nearest,
)
from decodekit.moved import how_to_get
from decodekit.registry import registry
from decodekit.strategy import Strategy

__all__ = ["CustomLoop", "custom_of", "load_object", "read_custom", "strategy_of"]


def read_custom(
    custom_generate: Any, *, strategy: Any = None, trust_remote_code: bool | None = None
) -> type[Strategy] | Strategy | CustomLoop:
    """Find out what ``custom_generate`` is.

    Args:
        custom_generate: ``"package.module"``, ``"package.module:name"``, a callable of transformers' kind, a
            `Strategy` class or instance, a local folder, or a hub id, the last two with
            ``custom_generate/generate.py`` inside. A module means the one strategy that it defines, or else
            its function ``generate``.
        strategy: the call's other way to name a strategy; there can't be both.
        trust_remote_code: True lets the code of a folder or a repository run.

    Raises:
        ParameterError: it is something else, or the module has not exactly one thing to mean.
        UnknownNameError: there is no such module, folder or repository.
        PluginError: the module can't be imported, or its strategy breaks the contract.
        TrustError: a folder or a repository, without ``trust_remote_code=True`` or against the allow-list.
        MissingLibraryError: its requirements are not installed.
    """
    if strategy is not None:
        message = "custom_generate and strategy contradict each other: both say how to decode; leave one out"
        raise ParameterError(message)
    if isinstance(custom_generate, os.PathLike):
        custom_generate = os.fspath(custom_generate)
    if isinstance(custom_generate, str) and _is_repo(custom_generate):
        return CustomRepo(custom_generate, trust_remote_code)
    found = _named(custom_generate) if isinstance(custom_generate, str) else custom_generate
    if isinstance(found, ModuleType):
        found = _meant_by(found)
    if isinstance(found, (Strategy, type)):
        check_class("strategies", found if isinstance(found, type) else type(found))
        return found
    if callable(found):
        return CustomFunction(found)
    message = (
        f"custom_generate={custom_generate!r} is not allowed: it must be 'package.module', "
        "'package.module:name', a function (model, input_ids, ...), a decodekit.Strategy, a folder or a hub "
        "id with custom_generate/generate.py"
    )
    raise ParameterError(message)


def custom_of(
    named: Mapping[str, Any], ours: Mapping[str, Any], kwargs: dict[str, Any]
) -> type[Strategy] | Strategy | CustomLoop | None:
    """What a call's ``custom_generate`` is; None without. Its ``trust_remote_code`` leaves ``kwargs``.

    Args:
        named: transformers' own arguments by name.
        ours: strategy, processors, seed, tokenizer.
        kwargs: the further keywords.

    Raises:
        see `read_custom`; a streamer is ended first, as its reader would wait for ever.
    """
    if named["custom_generate"] is None:
        return None
    trusted = kwargs.pop("trust_remote_code", None)
    try:
        return read_custom(named["custom_generate"], strategy=ours["strategy"], trust_remote_code=trusted)
    except Exception:
        if named["streamer"] is not None:
            named["streamer"].end()
        raise


def strategy_of(
    custom_generate: Any, *, strategy: Any = None, trust_remote_code: bool | None = None
) -> type[Strategy] | Strategy:
    """The strategy that ``custom_generate`` is, for a caller that streams events.

    Raises:
        UnsupportedArgumentError: it has a loop of its own, which tells nothing of its tokens.
        And what `read_custom` raises.
    """
    message = (
        f"custom_generate={custom_generate!r} has a loop of its own, which gives no events: name a "
        "decodekit.Strategy, or call decodekit.generate in Python, with streamer="
    )
    try:
        found = read_custom(custom_generate, strategy=strategy, trust_remote_code=trust_remote_code)
    except TrustError as error:  # to trust a folder or a repository would not help here
        raise UnsupportedArgumentError(message) from error
    if isinstance(found, CustomLoop):
        raise UnsupportedArgumentError(message)
    return found


def load_object(spec: str) -> Any:
    """What ``package.module`` or ``package.module:name`` names: a module, or what it holds.

    Raises:
        UnknownNameError: there is no such module, or it has no such name.
        PluginError: the module is there and can't be imported.
    """
    module_name, _, path = spec.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        message = f"there is no module {module_name!r}"
        raise UnknownNameError(message)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            message = f"there is no module {module_name!r}"
            raise UnknownNameError(message) from error
        message = f"the module {module_name} can't be imported: {error}; pip install what has it"
        raise PluginError(message) from error
    except Exception as error:
        message = f"the module {module_name} can't be imported: {type(error).__name__}: {error}"
        raise PluginError(message) from error
    for name in path.split(".") if path else ():
        if not hasattr(found, name):
            where = getattr(found, "__qualname__", getattr(found, "__name__", found))
            message = f"{where} has no {name!r}.{nearest(name, dir(found))}"
            raise UnknownNameError(message)
        found = getattr(found, name)
    return found


def _is_repo(text: str) -> bool:
    """Whether a text is a folder or a hub id, and not the name of a module."""
    return "/" in text or os.sep in text or (Path(text) / "custom_generate" / "generate.py").is_file()


def _meant_by(module: ModuleType) -> Any:
    """The one strategy that a module defines, or its function ``generate``."""
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Strategy)
        and value.NAME
        and value.__module__ == module.__name__
    ]
    function = getattr(module, "generate", None)
    candidates = [*own, *([function] if callable(function) else [])]
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(f"{module.__name__}:{item.__name__}" for item in candidates)
    what = f"defines several things to decode with: name one, {names}" if names else (
        "defines neither a decodekit.Strategy nor a function generate(model, input_ids, ...)"
    )  # fmt: skip
    message = f"custom_generate={module.__name__!r}: the module {what}"
    raise ParameterError(message)


def _named(spec: str) -> Any:
    """What a text names; what is not there is told with what may have been meant."""
    try:
        return load_object(spec)
    except UnknownNameError as error:
        lines = [f"custom_generate={spec!r}: {error}"]
        if ":" not in spec:
            lines[0] += ", and no folder of that name with custom_generate/generate.py in it."
        strategies = registry().entries("strategies")
        if spec in strategies:
            lines.append(f"{spec!r} is an installed strategy: pass strategy={spec!r}.")
        elif advice := how_to_get(spec):
            lines.append(advice)
        else:
            lines[0] += nearest(spec, strategies)
        raise UnknownNameError("\n".join(lines)) from error

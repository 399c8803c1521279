"""Code that calls ``model.generate`` runs through decodekit: in a block, or inside a model's own one."""

import contextlib
import copy
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import attrs
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin
from transformers.generation.streamers import BaseStreamer

from decodekit.arguments import check_streamer
from decodekit.chain_config import OFF
from decodekit.errors import ParameterError, UnsupportedArgumentError
from decodekit.outputs import without_ours

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["bypassed", "drop_in", "has_own_generate", "through_own_generate"]

_THEIRS = GenerationMixin.generate
_OURS = ("strategy", "processors", "seed", "tokenizer", "compile")


@attrs.define(eq=False)
class _Scope:
    """Whose ``generate`` is replaced, with which arguments, and how often it was called."""

    model: Any
    defaults: dict[str, Any]
    calls: int = 0

    def covers(self, model: Any) -> bool:
        if self.model is None or self.model is model:
            return True
        return isinstance(self.model, nn.Module) and any(part is model for part in self.model.modules())


_scopes: list[_Scope] = []
"""The blocks of `drop_in` that are open."""
_inside: ContextVar[tuple[_Scope, ...]] = ContextVar("_inside", default=())
"""The models in whose own ``generate`` this thread is."""
_bypassed: ContextVar[bool] = ContextVar("_bypassed", default=False)
_open = 0
_lock = threading.Lock()


@contextlib.contextmanager
def drop_in(model: "PreTrainedModel | None" = None, **defaults: Any) -> Iterator[None]:
    """Within the block, ``model.generate(...)`` is ``decodekit.generate(model, ...)``.

    For code of others: a pipeline, an evaluation harness, a trainer. It holds for every thread of the
    process, and ends with the block, after an error too.

    Args:
        model: whose calls, and those of the models inside it; left out, those of every model.
        **defaults: arguments of `decodekit.generate` (``strategy``, ``processors``, ``seed``, any keyword)
            for calls that do not give them. ``processors`` is the whole chain, also for code that asks for
            a temperature or the like.

    Raises:
        ParameterError: ``model`` is something else than a model.
    """
    if model is not None and not isinstance(model, nn.Module):
        message = (
            f"drop_in got a {type(model).__name__} as model: give a model of transformers, or nothing for "
            "every model; arguments of generate go by name"
        )
        raise ParameterError(message)
    scope = _Scope(model, defaults)
    with _replaced():
        _scopes.append(scope)
        try:
            yield
        finally:
            _scopes.remove(scope)


@contextlib.contextmanager
def _replaced() -> Iterator[None]:
    """``GenerationMixin.generate`` asks `_dispatch`, as long as anybody needs it."""
    global _open
    with _lock:
        _open += 1
        GenerationMixin.generate = _dispatch
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if not _open:
                GenerationMixin.generate = _THEIRS


@contextlib.contextmanager
def _set(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def bypassed() -> contextlib.AbstractContextManager[None]:
    """Within the block, transformers' own ``generate`` runs in this thread, also inside `drop_in`."""
    return _set(_bypassed, True)


def _dispatch(self: Any, *args: Any, **kwargs: Any) -> Any:
    """``GenerationMixin.generate`` while a scope is open."""
    from decodekit.generate import run  # it imports this module

    scopes = (*reversed(_inside.get()), *reversed(_scopes))
    scope = next((scope for scope in scopes if scope.covers(self)), None)
    if scope is None or _bypassed.get():
        return _THEIRS(self, *args, **kwargs)
    scope.calls += 1
    names = _NAMED[: len(args)]
    given = {**scope.defaults, **dict(zip(names, args, strict=True)), **kwargs}
    if scope.defaults.get("processors") is not None and "processors" not in kwargs:
        for name in OFF:  # the block's chain is the whole chain, whatever this code asks for
            given.pop(name, None)
        given["generation_config"] = _without_chain(given.get("generation_config"))
    named = {name: given.pop(name, None) for name in _NAMED}
    ours = {name: given.pop(name, None) for name in _OURS}
    result = run(self, named, ours, given)
    if isinstance(result, Tensor) or not has_own_generate(self):
        return result
    return without_ours(result)  # Whisper cuts every field into rows


def _without_chain(config: Any) -> Any:
    if not isinstance(config, GenerationConfig):
        return config
    config = copy.copy(config)
    vars(config).update(dict.fromkeys(OFF.keys() & vars(config).keys()))
    return config


_NAMED = (
    "inputs",
    "generation_config",
    "logits_processor",
    "stopping_criteria",
    "prefix_allowed_tokens_fn",
    "synced_gpus",
    "assistant_model",
    "streamer",
    "negative_prompt_ids",
    "negative_prompt_attention_mask",
    "custom_generate",
)
"""The arguments of transformers' ``generate`` in their order."""


def has_own_generate(model: Any) -> bool:
    """Whether the model (or what wraps it, like a PEFT model) does more in ``generate`` than decode."""
    if isinstance(model, GenerationMixin):
        return type(model).generate not in (_THEIRS, _dispatch)
    wraps = isinstance(model, nn.Module) and callable(getattr(model, "generate", None))
    return wraps and any(isinstance(part, GenerationMixin) for part in model.modules())


class _Held(BaseStreamer):  # type: ignore[misc]  # transformers has no stubs
    """A streamer whose end comes later: a model may decode several times, or fail between."""

    def __init__(self, streamer: Any) -> None:
        self._streamer = streamer

    def put(self, value: Any) -> None:
        """Pass it on."""
        self._streamer.put(value)

    def end(self) -> None:
        """Not yet."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._streamer, name)


@contextlib.contextmanager
def _ended_once(arguments: dict[str, Any]) -> Iterator[None]:
    """The streamer among the arguments is ended after all calls, and after an error."""
    streamer = arguments.get("streamer")
    check_streamer(streamer)
    if streamer is None:
        yield
        return
    arguments["streamer"] = _Held(streamer)
    try:
        yield
    finally:
        streamer.end()


@contextlib.contextmanager
def _decoding_kept(*models: Any) -> Iterator[None]:
    """Put the generation configurations back as they were: Whisper and PEFT write into them."""
    parts = [part for model in models if isinstance(model, nn.Module) for part in model.modules()]
    found = [(part, vars(part).get("generation_config")) for part in parts]
    kept = [(part, config, dict(vars(config))) for part, config in found if config is not None]
    try:
        yield
    finally:
        for part, config, fields in kept:
            part.generation_config = config
            vars(config).clear()
            vars(config).update(fields)


def through_own_generate(model: Any, arguments: Mapping[str, Any], ours: Mapping[str, Any]) -> Any:
    """Call the model's own ``generate``, whose inner calls run through decodekit.

    Args:
        model: the model.
        arguments: for its ``generate``; None is left out.
        ours: what only decodekit knows, for the inner calls.

    Raises:
        UnsupportedArgumentError: something of ``ours`` was given, and the model has a loop of its own.
    """
    scope = _Scope(model, {name: value for name, value in ours.items() if value is not None})
    given = {name: value for name, value in arguments.items() if value is not None}
    inside = _set(_inside, (*_inside.get(), scope))
    with _replaced(), inside, _ended_once(given), _decoding_kept(model, given.get("assistant_model")):
        first = [given.pop("inputs")] if "inputs" in given else []  # Whisper has another name for it
        result = type(model).generate(model, *first, **given)
    if scope.defaults and not scope.calls:
        message = (
            f"{type(model).__name__}.generate decodes in a loop of its own, in which "
            f"{', '.join(scope.defaults)} would have no effect: leave it out, or call model.generate"
        )
        raise UnsupportedArgumentError(message)
    return result

"""The compiled step on an accelerator: transformers' compiled forward over a static cache, as CUDA graphs.

A graph repeats what it has seen, at the addresses it has seen, and a wrong one gives wrong tokens in silence.
So each is tried before a call relies on it, against the model's own passes, in caches of its own.
"""

import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import GenerationConfig

from decodekit.caches import new_cache
from decodekit.kernels import NotCompilableError, announced
from decodekit.session import Session
from decodekit.transformers_hooks import OneToken, compiled_call

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ROOM", "are_for", "graphed_call"]

ROOM = 256
"""Static caches are as wide as a multiple of this, so that calls of other lengths find their graph again."""
_PASSES = 4  # a prompt, one that compiles, one that is recorded, one that is replayed
_BLUR = 0.05  # of the size of the logits; half precision, and sums in another order

_TRIED: "weakref.WeakKeyDictionary[PreTrainedModel, set[tuple[int, int, int]]]" = weakref.WeakKeyDictionary()


def are_for(model: "PreTrainedModel") -> bool:
    """Whether the compiled step of a model are graphs; on a CPU it is `decodekit.compiled`."""
    return bool(model.device.type != "cpu")


def graphed_call(model: "PreTrainedModel", config: GenerationConfig, rows: int, capacity: int) -> OneToken:
    """The compiled forward for passes of one token a row; compiled and tried at its first use.

    Args:
        model: on an accelerator.
        config: of the call; its ``compile_config`` says how to compile.
        rows: of the batch.
        capacity: slots of the static cache, a multiple of `ROOM`.

    Raises:
        NotCompilableError: there is none for this model, or it does not give the model's logits.
    """
    call = compiled_call(model, config, new_cache(model, "static", capacity))
    if call is None:
        message = (
            "disable_compile=True says so"
            if config.disable_compile
            else "transformers does not compile the forward of this model on its devices"
        )
        raise NotCompilableError(message)
    key = rows, capacity, id(call.run)
    tried = _TRIED.setdefault(model, set())
    if key not in tried:
        what = (
            f"{type(model).__name__} for {rows} row{'s' * (rows > 1)}: about a minute, once in this process"
        )
        with announced(what):
            _try(model, call, rows, capacity)
        tried.add(key)
    return call


def _try(model: "PreTrainedModel", call: OneToken, rows: int, capacity: int) -> None:
    """Compare a few compiled passes with the model's own."""
    plain, quick = (Session(model, cache="static", capacity=capacity) for _ in range(2))
    quick.compiled = call
    tokens = torch.arange(rows * _PASSES).remainder(model.get_input_embeddings().num_embeddings)
    try:
        with torch.no_grad():
            alike = all(
                _alike(plain.feed(column).logits, quick.feed(column).logits)
                for column in tokens.view(_PASSES, rows, 1)
            )
    except Exception as error:  # whatever the compiler or the graph meets: the model runs without
        first = next(iter(str(error).splitlines()), "no message")
        message = f"its compiled forward fails ({type(error).__name__}: {first})"
        raise NotCompilableError(message) from error
    if not alike:
        message = "its compiled forward gives other logits than the model"
        raise NotCompilableError(message)


def _alike(first: Tensor, second: Tensor) -> bool:
    first, second = first.double(), second.double()
    return bool((first - second).norm() <= _BLUR * first.norm())

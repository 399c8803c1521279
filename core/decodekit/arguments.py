"""Arguments that transformers takes as they come, or trips over in the middle of its loop."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import attrs
from torch import Tensor, nn

from decodekit.errors import ParameterError

__all__ = ["check_compile", "check_objects", "check_streamer", "check_values"]


@attrs.frozen
class _Rule:
    """What is allowed: a test, and the words for it."""

    holds: Callable[[Any], bool]
    allowed: str


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_token(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_floating_point()
    return _is_integer(value)


def _are_tokens(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dim() < 2 and not value.is_floating_point()
    return all(map(_is_integer, value)) if isinstance(value, (list, tuple)) else _is_integer(value)


def _is_list(value: Any) -> bool:
    """Whether it holds items; of which kind, the processor that gets them checks."""
    return isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "ndim", 1) > 0


def _are_texts(value: Any) -> bool:
    """Whether it is a text or some; an empty one would end every row at its first token."""
    texts = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(text, str) and text for text in texts)


_COUNT = _Rule(lambda value: _is_integer(value) and value >= 1, "int in [1, inf)")
_LENGTH = _Rule(lambda value: _is_integer(value) and value >= 0, "int in [0, inf)")
_INTEGER = _Rule(_is_integer, "int")
_NUMBER = _Rule(_is_number, "a number")
_SECONDS = _Rule(lambda value: _is_number(value) and not math.isnan(value), "a number of seconds")
_FINITE = _Rule(lambda value: _is_number(value) and math.isfinite(value), "a finite number")
_TOKEN = _Rule(_is_token, "a token id")
_TOKENS = _Rule(_are_tokens, "a token id or a list of them")
_RANK = _Rule(lambda value: not isinstance(value, str), "int in [0, inf)")  # the processor checks the rest
_LIST = _Rule(_is_list, "a list of token ids, e.g. [5, 7]")
_RULES = {
    "max_new_tokens": _LENGTH,
    "max_length": _COUNT,
    "max_cache_len": _COUNT,
    "min_length": _INTEGER,
    "min_new_tokens": _INTEGER,
    "num_return_sequences": _COUNT,
    "prefill_chunk_size": _COUNT,
    "max_time": _SECONDS,
    "guidance_scale": _FINITE,
    "bos_token_id": _TOKEN,
    "pad_token_id": _TOKEN,
    "eos_token_id": _TOKENS,
    "decoder_start_token_id": _TOKENS,
    "top_k": _RANK,
    "suppress_tokens": _LIST,
    "begin_suppress_tokens": _LIST,
    "stop_strings": _Rule(_are_texts, "a text or a list of texts, none of them empty"),
    "do_sample": _Rule(lambda value: isinstance(value, bool), "True or False"),
}


def check_values(values: Mapping[str, Any]) -> None:
    """Check fields of the configuration that transformers reads before a part of decodekit could.

    Raises:
        ParameterError: one of ``values`` is not allowed.
    """
    for name, rule in _RULES.items():
        value = values.get(name)
        if value is not None and not rule.holds(value):
            allowed = f"{name} must be {rule.allowed}; leave it out for the default"
            message = f"{name}={value!r} is not allowed: {allowed}"
            raise ParameterError(message)


def check_streamer(streamer: Any) -> None:
    """Raise `ParameterError` for something that can't be streamed to."""
    missing = [name for name in ("put", "end") if not callable(getattr(streamer, name, None))]
    if streamer is not None and missing:
        message = (
            f"streamer={streamer!r} has no {' and no '.join(missing)}: give an object with put(tokens) and "
            "end(), e.g. transformers.TextStreamer(tokenizer)"
        )
        raise ParameterError(message)


def check_objects(options: Any) -> None:
    """Check the functions and the model that a call is given, before anybody calls them.

    Args:
        options: with compile, tokenizer, logits_processor, stopping_criteria, prefix_allowed_tokens_fn,
            assistant_model.

    Raises:
        ParameterError: one of them can't be called as it will be.
    """
    check_compile(options.compile)
    _check_tokenizer(options.tokenizer)
    _check_callables("logits_processor", options.logits_processor)
    _check_callables("stopping_criteria", options.stopping_criteria)
    allowed = options.prefix_allowed_tokens_fn
    if allowed is not None and not _takes_two(allowed):
        message = (
            f"prefix_allowed_tokens_fn={allowed!r} is not allowed: it must be a function of "
            "(batch_id, input_ids) that gives a list of token ids"
        )
        raise ParameterError(message)
    assistant = options.assistant_model
    if assistant is not None and not (isinstance(assistant, nn.Module) and hasattr(assistant, "config")):
        message = (
            f"assistant_model is a {type(assistant).__name__}: it must be a model of transformers, e.g. from "
            "AutoModelForCausalLM.from_pretrained"
        )
        raise ParameterError(message)


def _check_tokenizer(tokenizer: Any) -> None:
    """Raise `ParameterError` for something that can't decode tokens; None is no tokenizer."""
    if tokenizer is not None and not callable(getattr(tokenizer, "decode", None)):
        message = (
            f"tokenizer is a {type(tokenizer).__name__}, which has no decode: pass the model's tokenizer, "
            "e.g. from AutoTokenizer.from_pretrained"
        )
        raise ParameterError(message)


def check_compile(value: Any) -> None:
    """Refuse what is neither true nor false: a text such as "no" would count as true.

    Raises:
        ParameterError: ``value`` is something else than True, False and None.
    """
    if value is not None and not isinstance(value, bool):
        message = f"compile={value!r} is not allowed: compile must be True or False"
        raise ParameterError(message)


def _check_callables(name: str, items: Any) -> None:
    if not isinstance(items, Iterable):
        message = f"{name}={items!r} is not allowed: it must be a list, e.g. [{name.split('_')[-1]}]"
        raise ParameterError(message)
    for item in items:
        if not _takes_two(item):
            message = (
                f"{name} holds {item!r}: each item must be callable with (input_ids, scores); what it needs "
                "beside them belongs into its constructor"
            )
            raise ParameterError(message)


def _takes_two(function: Any) -> bool:
    """Whether it can be called with two arguments; what has no signature is given the benefit of doubt."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True

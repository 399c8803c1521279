"""Reading the prompts of a list: texts, chats, token ids, and objects that have values of their own."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeGuard

import attrs
from torch import Tensor

from decodekit.chats import is_chat, template_ids
from decodekit.errors import ParameterError, nearest

__all__ = ["Item", "read_item"]

_CHAT = '[{"role": "user", "content": "..."}]'
_FORMS = f'a text, a chat ({_CHAT}), token ids, or an object with "prompt" or "messages"'
_OWN = ("prompt", "messages", "id", "seed")
_PARTS = {"strategy", "custom_generate", "processors", "processor", "chain", "assistant_model", "system"}
_MEANS = {"model", "quant", "dtype", "device", "compile", "batch_size", "token_logprobs", "logprobs", "chat"}
"""Arguments of a call and options of ``decodekit batch`` that no prompt has of its own."""


@attrs.frozen(eq=False)
class Item:
    """One prompt of a list.

    Attributes:
        ids: its token ids; at least one.
        id: what its object calls it.
        seed: its own seed.
        settings: its own values of fields of the generation configuration, or of the strategy.
    """

    ids: list[int]
    id: Any = None
    seed: int | None = None
    settings: Mapping[str, Any] = attrs.field(factory=dict)


def read_item(value: Any, tokenizer: Any, known: Collection[str]) -> Item:
    """Read one prompt.

    Args:
        value: a text, a chat, token ids int64 [T] or a list of them, or a mapping with ``prompt`` or
            ``messages`` and, if it likes, ``id``, ``seed`` and values by the names in ``known``.
        tokenizer: the model's.
        known: the names of values that a prompt may have of its own.

    Raises:
        ParameterError: it is something else, is empty, or has a name that nobody knows.
    """
    if not isinstance(value, Mapping):
        return Item(_ids(value, tokenizer))
    given = [name for name in ("prompt", "messages") if name in value]
    if len(given) != 1:
        found = "both" if given else f"only {', '.join(map(repr, value)) or '{}'}"
        message = f'a prompt that is an object has "prompt" or "messages", and this one has {found}.'
        raise ParameterError(message + nearest(str(next(iter(value), "")), () if given else _OWN[:2]))
    settings = {name: own for name, own in value.items() if name not in _OWN}
    for name in settings:
        if name not in known and name in _PARTS | _MEANS:
            message = (
                f"{name!r} is no value that a prompt may have: all have the same, which the call is given"
            )
            raise ParameterError(message)
        if name not in known:
            message = f"{name!r} is no value that a prompt may have."
            raise ParameterError(message + nearest(str(name), sorted({*known, *_OWN})))
    if value.get("seed") is not None and type(value["seed"]) is not int:
        message = f"seed={value['seed']!r} is not allowed: seed must be an int"
        raise ParameterError(message)
    if given == ["messages"] and not is_chat(value["messages"]):
        message = (
            f"messages={_shown(value['messages'])} is not allowed: it must be a list of objects with role "
            f"and content, {_CHAT}"
        )
        raise ParameterError(message)
    return Item(_ids(value[given[0]], tokenizer), value.get("id"), value.get("seed"), settings)


def _ids(prompt: Any, tokenizer: Any) -> list[int]:
    if isinstance(prompt, str):
        ids = _encoded(prompt, tokenizer)
    elif is_chat(prompt):
        ids = template_ids(prompt, tokenizer)
    elif _are_ids(given := prompt.tolist() if isinstance(prompt, Tensor) else prompt):
        ids = list(given)
    else:
        message = f"{_shown(prompt)} is no prompt: it must be {_FORMS}"
        raise ParameterError(message)
    if not ids:
        start = getattr(tokenizer, "bos_token_id", None)
        nothing = f", or the token ids [{start}] to start from nothing" if start is not None else ""
        message = f"the prompt is empty: give it at least one token{nothing}"
        raise ParameterError(message)
    return list(ids)


def _are_ids(value: Any) -> TypeGuard[Sequence[int]]:
    return isinstance(value, Sequence) and all(type(token) is int for token in value)


def _encoded(text: str, tokenizer: Any) -> list[int]:
    try:
        ids: list[int] = tokenizer(text)["input_ids"]
    except (TypeError, UnicodeError) as error:  # half of a surrogate pair, which JSON can spell
        message = f"the tokenizer can't read the prompt {_shown(text)}: {error}"
        raise ParameterError(message) from error
    return ids


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

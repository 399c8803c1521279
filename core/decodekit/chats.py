"""Chats: lists of messages, which a tokenizer's template turns into token ids."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from decodekit.errors import ParameterError

__all__ = ["is_chat", "messages", "template_ids"]


def is_chat(value: Any) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    """Whether a value is a list of messages with a role and a content."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(item, Mapping) and {"role", "content"} <= item.keys() for item in value)
    )


def messages(text: str, system: str | None = None) -> list[dict[str, str]]:
    """A chat that begins with what a user says, and before it what the system is told."""
    roles = [("system", system), ("user", text)]
    return [{"role": role, "content": content} for role, content in roles if content is not None]


def template_ids(chat: Sequence[Mapping[str, Any]], tokenizer: Any) -> list[int]:
    """The token ids of a chat, up to where the answer begins.

    Raises:
        ParameterError: the tokenizer has no chat template, or its template refuses the messages.
    """
    if not getattr(tokenizer, "chat_template", None):
        message = "the prompt is a chat, and this tokenizer has no chat template: give it as one text"
        raise ParameterError(message)
    try:
        encoded = tokenizer.apply_chat_template(list(chat), add_generation_prompt=True, return_dict=True)
    except Exception as error:  # a template raises whatever its author thought of
        message = f"the chat template of the tokenizer refuses these messages: {error}"
        raise ParameterError(message) from error
    ids: list[int] = encoded["input_ids"]
    return ids

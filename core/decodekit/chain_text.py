"""The text form of a chain: ``repetition_penalty=1.1 > top_k=50 > dry(multiplier=0.8, window=512)``."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from decodekit.errors import ParameterError

__all__ = ["is_text", "read_chain"]

_OPEN, _CLOSE, _QUOTES = "([{", ")]}", "'\""
_NAMED = re.compile(r"^\s*(\w+)\s*=(.*)$", re.S)
_CALLED = re.compile(r"^\s*(\w+)\s*\((.*)\)\s*$", re.S)
_INFINITE = re.compile(r"\binf\b")


def is_text(spec: Any) -> bool:
    """Whether a spec of a processor is more than its name: text that `read_chain` reads."""
    return isinstance(spec, str) and not re.fullmatch(r"[\w.-]+", spec)


def read_chain(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Read a chain as pairs of a name and parameters, for `Registry.resolve`.

    An item is ``name``, ``name=value`` for the parameter of its own name, or ``name(key=value, ...)``; items
    are parted by ``>``. A value is a number or a Python literal, otherwise a text as on the command line.
    ``none`` is the empty chain.

    Raises:
        ParameterError: an item has another form.
    """
    if text.strip().lower() in ("", "none"):
        return []
    return [_item(item, text) for item in _split(text, ">")]


def _item(item: str, text: str) -> tuple[str, dict[str, Any]]:
    if re.fullmatch(r"\s*\w+\s*", item):
        return item.strip(), {}
    if found := _CALLED.match(item):
        pairs = [_NAMED.match(part) for part in _split(found[2], ",") if part.strip()]
        if all(pairs):
            return found[1], {pair[1]: _value(pair[2]) for pair in pairs if pair}
    elif (found := _NAMED.match(item)) and found[2].strip():
        return found[1], {found[1]: _value(found[2])}
    message = (
        f"{item.strip()!r} in the chain {text!r} is not a processor: write name, name=value or "
        "name(key=value, ...), with > between them, e.g. 'repetition_penalty=1.1 > top_k=50 > min_p=0.05'"
    )
    raise ParameterError(message)


def _split(text: str, mark: str) -> Iterator[str]:
    """The parts between the marks that stand in no bracket and no quotes."""
    depth, quote, start, skip = 0, "", 0, False
    for place, char in enumerate(text):
        if skip or quote:
            skip, quote = (not skip and char == "\\"), ("" if char == quote and not skip else quote)
        elif char in _QUOTES:
            quote = char
        else:
            depth += (char in _OPEN) - (char in _CLOSE)
            if char == mark and not depth:
                yield text[start:place]
                start = place + 1
    yield text[start:]


def _value(text: str) -> Any:
    """The Python value of a literal, in which inf is a number; another text as it is."""
    text = text.strip()
    for literal in (text, _INFINITE.sub("1e999", text)):
        try:
            return ast.literal_eval(literal)
        except (ValueError, SyntaxError):
            continue
    return text

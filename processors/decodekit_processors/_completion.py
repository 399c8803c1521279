"""How a text that follows a grammar comes to an end: short ways from a place to a complete text."""

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodekit_processors._matchers import Matcher

__all__ = ["closers", "completion", "way_after"]

_CLOSING = "\"}])>'`;,.:"
_OTHERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_+=/|&%#@!?*({[<~^$\\ \t\n"
_BEAM = 8
"""Places that the search by levels keeps at each length."""
_FEW = 16
_LONGEST = 1024
_MOST = 2000
"""Places that a search looks at before it gives up, a tenth of a second."""


_CLOSERS: weakref.WeakKeyDictionary[Any, list[int]] = weakref.WeakKeyDictionary()


def closers(tokenizer: Any) -> list[int]:
    """The tokens of single characters, those first that tend to end something."""
    if tokenizer not in _CLOSERS:
        ids = [tokenizer.encode(character, add_special_tokens=False) for character in _CLOSING + _OTHERS]
        _CLOSERS[tokenizer] = list(dict.fromkeys(tokens[-1] for tokens in ids if tokens))
    return _CLOSERS[tokenizer]


def _ids_of(bits: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The tokens whose bit is set."""
    return np.unpackbits(bits, bitorder="little").nonzero()[0]


def _has(bits: NDArray[np.uint8], token: int) -> bool:
    return bool(bits[token >> 3] >> (token & 7) & 1)


def completion(place: Matcher, alphabet: Sequence[int], limit: int) -> list[int] | None:
    """A short way to a complete text, of at most ``limit`` tokens.

    It is short, but not always the shortest: what is open is closed after as few further tokens as do, among
    a few places of each length that differ in what may come next.

    Returns:
        Its tokens; None when none was found.
    """
    level: list[tuple[Matcher, list[int]]] = [(place, [])]
    seen, best = 0, None
    while level and seen <= _MOST:
        for here, before in level:
            rest = _by_closing(here, alphabet, min(limit, _LONGEST) - len(before))
            if rest is not None and (best is None or len(before) + len(rest) < len(best)):
                best = before + rest
        if best is not None:
            return best
        ahead: dict[bytes, tuple[Matcher, list[int]]] = {}
        for here, before in level:
            for tokens, child in _children(here, alphabet):
                if len(before) + len(tokens) <= limit:
                    ahead.setdefault(child.bits().tobytes(), (child, before + tokens))
                seen += 1
        level = list(ahead.values())[:_BEAM]
    return None


def way_after(
    place: Matcher, known: Sequence[list[int]], alphabet: Sequence[int], limit: int
) -> list[int] | None:
    """The first of the known ways that leads from the place to a complete text; or a new one, or None."""
    for way in known:
        end = place.after(*way) if len(way) <= limit else None
        if end is not None and end.is_complete():
            return way
    return _by_closing(place, alphabet, limit)


def _by_closing(place: Matcher, alphabet: Sequence[int], limit: int) -> list[int] | None:
    """Take what is forced, else close what is open."""
    way: list[int] = []
    while not place.is_complete():
        forced = place.forced()
        end = place.after(*forced) if forced else None
        if end is None:
            forced = [_first_allowed(place.bits(), alphabet)]
            end = place.after(forced[0])
        if end is None or len(way) + len(forced) > limit:
            return None
        place, way = end, way + forced
    return way


def _first_allowed(bits: NDArray[np.uint8], alphabet: Sequence[int]) -> int:
    for token in alphabet:
        if _has(bits, token):
            return token
    return int(np.unpackbits(bits, bitorder="little").argmax())


def _children(place: Matcher, alphabet: Sequence[int]) -> Iterator[tuple[list[int], Matcher]]:
    forced = place.forced()
    end = place.after(*forced) if forced else None
    if end is not None:
        yield forced, end
        return
    bits = place.bits()
    allowed = [token for token in alphabet if _has(bits, token)]
    if not allowed or int(np.bitwise_count(bits).sum()) <= _FEW:
        allowed = _ids_of(bits)[:_FEW].tolist()
    for token in allowed:
        child = place.after(token)
        if child is not None:
            yield [token], child

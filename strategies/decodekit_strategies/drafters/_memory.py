"""What a drafter remembers of a row, grown with the row's committed tokens."""

import copy
import weakref
from typing import Any, Protocol, TypeVar

from decodekit import Row

__all__ = ["Grown", "of_row"]


class Grown(Protocol):
    """Something that is extended token by token."""

    tokens: list[int]
    """What it has seen."""

    def extend(self, token: int) -> None:
        """See one more token."""


M = TypeVar("M", bound=Grown)


def of_row(row: Row, key: str, empty: M) -> M:
    """The row's own memory, brought up to its last committed token; ``empty`` is what a new one begins as.

    A fork's memo still holds the memory of the row that it was forked from, which must not see the
    fork's tokens, so that the fork copies it.
    """
    owner, memory = row.memo.get(key, (lambda: None, None))
    if owner() is not row:
        memory = copy.deepcopy(memory) if memory is not None else empty
        row.memo[key] = (weakref.ref(row), memory)  # weakly, or only the garbage collector would free the row
    grown: Any = memory
    for token in row.since(len(grown.tokens)):
        grown.extend(token)
        grown.tokens.append(token)
    own: M = grown
    return own

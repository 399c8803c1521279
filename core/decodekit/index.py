"""What is known of a row's tokens, kept up as tokens come, so that a question costs the same at any length.

Nothing is computed before it is first asked for, and then in one pass over the row. A fork shares what it
has from its parent: neither adds to it any more, both look at the few tokens since by themselves, and after
`_TAIL` of them start anew.
"""

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import attrs
import numpy as np

__all__ = ["RowIndex", "View"]

_TAIL = 64


class Part(abc.ABC):
    """One kind of knowledge of the first ``length`` tokens."""

    def __init__(self) -> None:
        self.length = 0
        self.shared = False

    @abc.abstractmethod
    def add(self, tokens: Sequence[int], place: int) -> None:
        """Learn the token at a place; those before it are known."""


Kind = TypeVar("Kind", bound=Part)


class Tally(Part):
    """The distinct tokens of a stretch of the row and how often each occurs."""

    def __init__(self, start: int, end: float) -> None:
        super().__init__()
        self._start, self._end = start, end
        self._slots: dict[int, int] = {}
        self._ids, self._counts = np.zeros(16, np.int64), np.zeros(16, np.float32)

    def add(self, tokens: Sequence[int], place: int) -> None:
        """Count a token of the stretch."""
        if not self._start <= place < self._end:
            return
        slot = self._slots.setdefault(tokens[place], len(self._slots))
        if slot == len(self._ids):
            self._ids, self._counts = (np.concatenate([old, 0 * old]) for old in (self._ids, self._counts))
        self._ids[slot] = tokens[place]
        self._counts[slot] += 1

    @property
    def ids(self) -> np.ndarray:
        """The tokens, int64 [D]."""
        return self._ids[: len(self._slots)]

    @property
    def counts(self) -> np.ndarray:
        """How often, float32 [D]."""
        return self._counts[: len(self._slots)]


class Followers(Part):
    """For each run of n - 1 tokens those that came after it, ending before a place."""

    def __init__(self, n: int, end: float) -> None:
        super().__init__()
        self._n, self._end = n, end
        self._after: dict[tuple[int, ...], dict[int, None]] = {}  # the inner one is an ordered set

    def add(self, tokens: Sequence[int], place: int) -> None:
        """Learn what the token came after."""
        first = place - self._n + 1
        if first >= 0 and place < self._end:
            self._after.setdefault(tuple(tokens[first:place]), {})[tokens[place]] = None

    def of(self, run: tuple[int, ...]) -> list[int]:
        """The tokens that came after a run."""
        return list(self._after.get(run, ()))


class Automaton(Part):
    """All substrings of the row: a suffix automaton (Blumer et al. 1985), which grows by a token at a time.

    A state is a set of substrings that end at the same places; it stands for the longest, of ``size``
    tokens, and ``link`` leads to the longest suffix that ends at more places. The row's own end, cut to
    ``most`` tokens, is the state ``end``.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.after: list[dict[int, int]] = [{}]
        self.link, self.size = [-1], [0]
        self.end, self.matched = 0, 0
        self._last = 0

    def add(self, tokens: Sequence[int], place: int) -> None:
        """Learn all substrings that end with the token."""
        token, new = tokens[place], self._state({}, self.size[self._last] + 1, 0)
        state = self._last
        while state >= 0 and token not in self.after[state]:
            self.after[state][token] = new
            state = self.link[state]
        if state >= 0:
            self.link[new] = self._split(state, token)
        self._last = new
        self.end, self.matched = self.step(self.end, self.matched, token)

    def _split(self, state: int, token: int) -> int:
        """The state of the longest substring of ``state`` and ``token``, on its own if need be."""
        longer = self.after[state][token]
        if self.size[longer] == self.size[state] + 1:
            return longer
        copy = self._state(dict(self.after[longer]), self.size[state] + 1, self.link[longer])
        self.link[longer] = copy
        while state >= 0 and self.after[state].get(token) == longer:
            self.after[state][token] = copy
            state = self.link[state]
        return copy

    def _state(self, after: dict[int, int], size: int, link: int) -> int:
        self.after.append(after)
        self.size.append(size)
        self.link.append(link)
        return len(self.size) - 1

    def step(self, state: int, matched: int, token: int) -> tuple[int, int]:
        """The state of the longest suffix of what was matched and the token, at most ``most`` tokens."""
        state = self._holding(state, matched)
        while state and token not in self.after[state]:
            state = self.link[state]
            matched = self.size[state]
        if token in self.after[state]:
            state, matched = self.after[state][token], min(matched + 1, self.most)
        return self._holding(state, matched), matched

    def _holding(self, state: int, matched: int) -> int:
        """The state on the way up that holds the suffix of so many tokens."""
        while state and self.size[self.link[state]] >= matched:
            state = self.link[state]
        return state

    def followers(self, state: int, matched: int, least: int) -> Iterator[tuple[int, int]]:
        """Each token that came after a suffix, and the suffix's length, longest first."""
        state = self._holding(state, matched)
        while matched >= least and state >= 0:
            for token in self.after[state]:
                yield token, matched
            state = self.link[state]
            matched = self.size[state] if state >= 0 else 0


class RowIndex:
    """The tokens of a row, and what has been asked of them."""

    def __init__(self, tokens: Sequence[int], prompt_length: int) -> None:
        self.tokens = list(tokens)
        self.prompt_length = prompt_length
        self._parts: dict[object, Part] = {}

    def append(self, block: Sequence[int]) -> None:
        """The row has got more tokens."""
        self.tokens += block

    def fork(self) -> "RowIndex":
        """The index of a row with the same past."""
        twin = RowIndex(self.tokens, self.prompt_length)
        for part in self._parts.values():
            part.shared = True
        twin._parts = dict(self._parts)
        return twin

    def part(self, key: object, make: Callable[[], Kind]) -> Kind:
        """The knowledge of a kind: up to the row's end, or at most `_TAIL` tokens less when it is shared."""
        part = self._parts.get(key)
        if part is None or (part.shared and len(self.tokens) - part.length > _TAIL):
            part = self._parts[key] = make()
        if not part.shared:
            for place in range(part.length, len(self.tokens)):
                part.add(self.tokens, place)
            part.length = len(self.tokens)
        return part  # type: ignore[return-value]  # a key has one kind


@attrs.frozen(eq=False)
class View:
    """The index of a row as it stood at some length, and hypothetical tokens after it."""

    row: RowIndex
    length: int
    tail: tuple[int, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the row has not moved on since."""
        return len(self.row.tokens) == self.length

    def then(self, block: Sequence[int]) -> "View":
        """The view after more hypothetical tokens."""
        return View(self.row, self.length, (*self.tail, *block))

    def recent(self, count: int) -> list[int]:
        """The last tokens, at most ``count``."""
        if count <= len(self.tail):
            return list(self.tail[len(self.tail) - count :])
        return self.row.tokens[max(0, self.length - count + len(self.tail)) :] + list(self.tail)

    def tally(self, start: int, end: float) -> tuple[np.ndarray, np.ndarray]:
        """The tokens at the places from start to end, int64 [D], and their counts; a token may come twice."""
        known = self.row.part(("tally", start, end), lambda: Tally(start, end))
        stop = None if end == np.inf else max(0, int(end) - known.length)
        rest = self._since(known)[max(0, start - known.length) : stop]
        if not rest:
            return known.ids, known.counts
        ids, counts = np.array(rest, np.int64), np.ones(len(rest), np.float32)
        return np.concatenate([known.ids, ids]), np.concatenate([known.counts, counts])

    def _since(self, known: Part) -> list[int]:
        """The tokens that a part doesn't know."""
        return [*self.row.tokens[known.length :], *self.tail]

    def followers(self, n: int, end: float) -> list[int]:
        """The tokens that would complete an n-gram that ends before a place, a second time."""
        total = self.length + len(self.tail)
        if total < n - 1:
            return []
        run = tuple(self.recent(n - 1)) if n > 1 else ()
        known = self.row.part(("followers", n, end), lambda: Followers(n, end))
        found = list(known.of(run))
        recent = self.recent(total - known.length + n - 1)  # from the first n-gram that it doesn't know
        first = total - len(recent)
        for place in range(n - 1, len(recent)):
            if known.length <= first + place < end and tuple(recent[place - n + 1 : place]) == run:
                found.append(recent[place])
        return found

    def repeats(self, least: int, most: int) -> dict[int, int]:
        """For each token how long an end of the row it came after before: from least to most tokens."""
        known = self.row.part(("automaton", most), lambda: Automaton(most))
        state, matched, rest = known.end, known.matched, self._since(known)
        for token in rest:
            state, matched = known.step(state, matched, token)
        found: dict[int, int] = {}
        for token, length in known.followers(state, matched, least):
            found.setdefault(token, length)
        recent = self.recent(len(rest) + most)
        for place in range(len(recent) - len(rest), len(recent)):
            length = _agreement(recent, place, most)
            if length >= least:
                found[recent[place]] = max(found.get(recent[place], 0), length)
        return found


def _agreement(tokens: Sequence[int], place: int, most: int) -> int:
    """How many of the tokens before a place agree with those at the end."""
    length, end = 0, len(tokens)
    while length < min(most, place) and tokens[place - 1 - length] == tokens[end - 1 - length]:
        length += 1
    return length

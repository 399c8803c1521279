"""The longest suffix of a row that stood before, found by an automaton of all its substrings."""

from collections.abc import Sequence
from typing import ClassVar

import attrs
from decodekit import Batch, Draft, Drafter, Pick, param

from decodekit_strategies.drafters._memory import of_row

__all__ = ["SuffixAutomaton"]


@attrs.define(eq=False)
class _Automaton:
    """The suffix automaton of a row's tokens, and the longest suffix that also stood earlier.

    A state is a class of substrings that end at the same places; ``longest`` is the length of its
    longest member, ``link`` the state of its longest suffix in another class, ``first`` where its
    members ended first. ``at`` and ``matched`` are state and length of the suffix that stood earlier.
    """

    tokens: list[int] = attrs.field(factory=list)
    follow: list[dict[int, int]] = attrs.field(factory=lambda: [{}])
    link: list[int] = attrs.field(factory=lambda: [-1])
    longest: list[int] = attrs.field(factory=lambda: [0])
    first: list[int] = attrs.field(factory=lambda: [0])
    whole: int = 0
    at: int = 0
    matched: int = 0

    def extend(self, token: int) -> None:
        """Move the match along (it may only see what stood before), then add the token."""
        while self.at and token not in self.follow[self.at]:
            self.at = self.link[self.at]
            self.matched = self.longest[self.at]
        if token in self.follow[self.at]:
            self.at = self.follow[self.at][token]
            self.matched += 1
        self._add(token)
        while self.at and self.matched <= self.longest[self.link[self.at]]:
            self.at = self.link[self.at]  # its state was split

    def _add(self, token: int) -> None:
        new = self._state({}, self.longest[self.whole] + 1, len(self.tokens) + 1)
        state = self.whole
        while state >= 0 and token not in self.follow[state]:
            self.follow[state][token] = new
            state = self.link[state]
        self.link[new] = 0 if state < 0 else self._split(state, token)
        self.whole = new

    def _split(self, state: int, token: int) -> int:
        """The state of ``state``'s longest member followed by the token, made where it is not one yet."""
        target = self.follow[state][token]
        if self.longest[target] == self.longest[state] + 1:
            return target
        clone = self._state({**self.follow[target]}, self.longest[state] + 1, self.first[target])
        self.link[clone] = self.link[target]
        self.link[target] = clone
        while state >= 0 and self.follow[state].get(token) == target:
            self.follow[state][token] = clone
            state = self.link[state]
        return clone

    def _state(self, follow: dict[int, int], longest: int, first: int) -> int:
        self.follow.append(follow)
        self.link.append(-1)
        self.longest.append(longest)
        self.first.append(first)
        return len(self.follow) - 1


@attrs.frozen
class SuffixAutomaton(Drafter):
    """What followed the longest end of the row that stood before, in the prompt or the output.

    Source: Hu et al. (2024), arXiv 2411.10666, section 3.2; the automaton is that of Blumer et al. (1985).
    Range: min_match in [1, inf).
    Shape: no forward pass; amortised constant time a row and new token, whatever the length of the match.
    Law: deterministic: a draft is a function of the row's tokens. The match is the longest.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "suffix_automaton"

    min_match: int = param(2, range="[1, inf)", help="Tokens that agree at least.")

    def draft(self, batch: Batch, lengths: Sequence[int], pick: Pick) -> Draft:
        """Follow each row's longest match."""
        drafts: list[list[int]] = []
        for row, most in zip(batch.rows, lengths, strict=True):
            automaton = of_row(row, self.NAME, _Automaton())
            place = automaton.first[automaton.at]
            long_enough = automaton.matched >= self.min_match
            drafts.append(automaton.tokens[place : place + most] if long_enough else [])
        return Draft(drafts)

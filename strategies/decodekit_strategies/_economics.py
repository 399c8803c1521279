"""Whether drafting pays: what passes and drafts cost, measured while running, against what is accepted."""

import bisect
import statistics
from collections import deque
from collections.abc import Callable, Sequence

import attrs

__all__ = ["Costs", "Economics", "expected_tokens"]

RECENT = 5
"""Measurements of one length whose median counts; the load of a machine changes."""
CHEAP = 0.03
"""A draft that costs less than this part of a pass is made before its length is decided."""
EXPLORING = 0.01
"""The part of all time that may be lost by trying what does not seem to pay."""
MARGIN = 0.05
"""How much sooner rows must end by a draft: measurements and rates are not exact."""
JUMP, SLOPE = 0.5, 0.06
"""What a draft, and each of its tokens, is taken to add to a pass before that is measured."""
PATIENCE = 8
"""Passes with drafts after which a plain one is measured, even if they seem to pay."""


def expected_tokens(rate: float, drafted: int) -> float:
    """Tokens that a pass gives when each drafted token is right with this rate: 1 + a + … + a^K.

    Leviathan et al. (2023), arXiv 2211.17192, equation 1.
    """
    return float(drafted + 1) if rate >= 1 else (1 - rate ** (drafted + 1)) / (1 - rate)


@attrs.define(eq=False)
class Costs:
    """Seconds by length: the median of recent measurements, and straight lines between and behind them."""

    _lengths: list[int] = attrs.field(factory=list, init=False)
    _seen: dict[int, deque[float]] = attrs.field(factory=dict, init=False)
    _medians: dict[int, float] = attrs.field(factory=dict, init=False)

    def add(self, length: int, seconds: float) -> None:
        """Note a measurement."""
        if length not in self._seen:
            self._seen[length] = deque(maxlen=RECENT)
            bisect.insort(self._lengths, length)
        self._seen[length].append(seconds)
        self._medians[length] = statistics.median(self._seen[length])

    def __contains__(self, length: int) -> bool:
        """Whether a length was measured."""
        return length in self._medians

    def nearest(self, length: int) -> int:
        """The length itself between those that were measured, else the nearest of these, or 0."""
        return min(max(length, self._lengths[0]), self._lengths[-1]) if self._lengths else 0

    def at(self, length: int) -> float:
        """The seconds of a length; before the first that was measured its own; unmeasured, 0."""
        known, medians = self._lengths, self._medians
        if not known:
            return 0.0
        if length in medians:
            return medians[length]
        if length < known[0] or len(known) == 1:
            return medians[known[0]]
        place = bisect.bisect(known, length)
        below, above = (known[place - 1], known[place]) if place < len(known) else (known[0], known[-1])
        low, high = medians[below], medians[above]
        return max(low + (high - low) * (length - below) / (above - below), 0.0)


@attrs.define(eq=False)
class Economics:
    """The measurements of one call, and the draft length that they advise.

    Attributes:
        filled: see `size`; left out, each length takes its own time.
        passes: seconds of a step of the target by the length of the longest draft.
        drafts: seconds of drafting by the length of the longest draft.
    """

    filled: Callable[[int], int] | None = None
    passes: Costs = attrs.field(factory=Costs)
    drafts: Costs = attrs.field(factory=Costs)
    _spent: float = 0.0
    _lost: float = 0.0
    _drafted_passes: int = 0

    @property
    def cheap(self) -> bool:
        """Whether drafting itself costs next to nothing, as far as is known."""
        return self.drafts.at(1) <= CHEAP * self._pass(0)

    def note(self, drafted: int, draft_seconds: float, pass_seconds: float, tokens: float) -> None:
        """Note a step: the longest draft that was asked for, its costs, and the mean of the rows' tokens."""
        self.passes.add(self.size(drafted), pass_seconds)
        self.drafts.add(drafted, draft_seconds)
        self._spent += pass_seconds + draft_seconds
        self._drafted_passes += drafted > 0
        if drafted:
            self._lost += pass_seconds + draft_seconds - tokens * self._pass(0)

    def forget(self) -> None:
        """Forget what passes took: they are of another number of rows now, and of other kernels."""
        self.passes = Costs()

    @property
    def _plain_known(self) -> bool:
        return 0 in self.passes

    def advise(self, rates: Sequence[float], available: Sequence[int], left: Sequence[int]) -> int:
        """How many tokens to draft at most: what lets all rows end soonest.

        Args:
            rates: for each row the part of its drafted tokens that is right.
            available: how many tokens each row has to draft.
            left: how many tokens each row has to get.
        """
        most = max(available, default=0)
        if most == 0 or (not self._plain_known and self._drafted_passes >= PATIENCE):
            return 0
        times = [self._time(drafted, rates, available, left) for drafted in range(most + 1)]
        best = times.index(min(times))
        best = best if times[best] < (1 - MARGIN) * times[0] else 0
        if best or not self._plain_known:
            return best
        trial = 1 + times[1:].index(min(times[1:]))
        slower = self._cost(trial) - self._pass(0)
        return trial if max(self._lost, 0.0) + slower <= EXPLORING * self._spent else 0

    def _time(
        self, drafted: int, rates: Sequence[float], available: Sequence[int], left: Sequence[int]
    ) -> float:
        """Seconds until every row has its tokens: with drafts as long as these pay for a row, then without.

        A row that gains nothing from drafts only waits for the longer passes of the others.
        """
        cost, plain = self._cost(drafted), self._pass(0)
        speeds = [
            expected_tokens(rate, min(drafted, count)) for rate, count in zip(rates, available, strict=True)
        ]
        pairs = list(zip(speeds, left, strict=True))
        steps = max((many / speed for speed, many in pairs if speed * plain > cost), default=0.0)
        if not steps:
            steps = 1.0 if drafted else 0.0  # a single try
        rest = max(many - steps * speed for speed, many in pairs)
        return steps * cost + max(rest, 0.0) * plain

    def _cost(self, drafted: int) -> float:
        return self._pass(drafted) + (self.drafts.at(drafted) if drafted else 0.0)

    def _pass(self, drafted: int) -> float:
        """Seconds of a pass; before a plain one is known, beyond what was measured by `_added`."""
        size = self.size(drafted)
        if self._plain_known:
            return self.passes.at(size)
        nearest = self.passes.nearest(size)
        return (self.passes.at(nearest) or 1.0) * _added(size) / _added(nearest)

    def size(self, drafted: int) -> int:
        """The longest draft that takes no longer than one of this length."""
        return drafted if self.filled is None else self.filled(drafted)


def _added(drafted: int) -> float:
    """How many plain passes a pass with a draft is taken for."""
    return 1 + JUMP + SLOPE * drafted if drafted else 1.0

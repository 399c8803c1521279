"""What a row of ``make bench`` is, and how it is measured: alternating runs of the base and of ours."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import attrs

__all__ = ["LEAST_RUNS", "Missing", "Result", "Row", "Seconds", "measure"]

Run = Callable[[], Any]
LEAST_RUNS = 3
"""Counted runs of each that a row gets however long they take, if they fit into its part of the time."""


class Seconds(float):
    """Seconds that a run measured itself, which count in place of the clock's."""


class Missing(Exception):  # noqa: N818  # it is no fault: the row is left out, and the reason is printed
    """What a row needs is not on this machine; the message says how to get it."""


@attrs.frozen(eq=False)
class Row:
    """One comparison.

    Attributes:
        base: what is compared with.
        theirs: a run of the base.
        ours: a run of ours: the same work.
        target: the least ratio that is aimed at.
        limit: the most seconds of ours that are aimed at.
        tokens: tokens that one run gives in its sequence.
        reads: gives the bytes that ours reads a token; asked after the runs.
        slow: is measured only when it is asked for, as it takes minutes or says little more than others.
        warm: what makes both ready and does not count: a run of each (True), nothing (False), or a function.
        runs: the most counted runs of each.
        times: how many times as many runs it gets, where they are short and differ a lot.
    """

    base: str
    theirs: Run
    ours: Run
    target: float | None = None
    limit: float | None = None
    tokens: int | None = None
    reads: Callable[[], float] | None = None
    slow: bool = False
    warm: bool | Run = True
    runs: int | None = None
    times: int = 1


@attrs.frozen
class Result:
    """What was measured of a row.

    Attributes:
        row: its name.
        base: what is compared with.
        runs: counted runs of each.
        base_seconds: the median of the base.
        seconds: the median of ours.
        ratio: base over ours, above 1 where we are faster; None where one of them takes no measurable time.
        spread: the least and the largest ratio of two runs side by side.
        base_tokens_per_second: of one sequence; None where the row is not about tokens.
        tokens_per_second: ours.
        gigabytes_per_second: what ours reads of weights and cache; None where that is not known.
        target: the least ratio that is aimed at; None where there is none.
        verdict: "loss" below a ratio of 1, "below target", "target met", or "" without a target; "too noisy"
            where a run took no measurable time.
    """

    row: str
    base: str
    runs: int
    base_seconds: float
    seconds: float
    ratio: float | None
    spread: tuple[float, float]
    base_tokens_per_second: float | None
    tokens_per_second: float | None
    gigabytes_per_second: float | None
    target: float | None
    verdict: str

    @classmethod
    def of(cls, name: str, row: Row, seconds: tuple[list[float], list[float]]) -> "Result":
        """The figures of the alternating runs of a row, those of the base first."""
        base, ours = map(statistics.median, seconds)
        ratios = [first / second for first, second in zip(*seconds, strict=True)]
        # What a row measures beyond the model's passes can be lost in their noise, and below zero.
        ratio = round(base / ours, 2) if base > 0 < ours else None
        # A limit in seconds is a ratio too: that of a run of ours which just keeps it.
        target = round(base / row.limit, 2) if row.limit is not None else row.target
        speed = row.tokens / ours if row.tokens and ours > 0 else None
        read = speed * row.reads() / 1e9 if speed and row.reads else None
        return cls(
            row=name,
            base=row.base,
            runs=len(ratios),
            base_seconds=round(base, 4),
            seconds=round(ours, 4),
            ratio=ratio,
            spread=(round(min(ratios), 2), round(max(ratios), 2)),
            base_tokens_per_second=round(row.tokens / base, 1) if row.tokens else None,
            tokens_per_second=round(speed, 1) if speed else None,
            gigabytes_per_second=round(read, 1) if read else None,
            target=target,
            verdict=_verdict(ratio, target) if min(ratios) > 0 else "too noisy",
        )


def _verdict(ratio: float | None, target: float | None) -> str:
    if ratio is not None and ratio < 1:
        return "loss"
    if target is None:
        return ""
    return "below target" if ratio is not None and ratio < target else "target met"


def measure(row: Row, runs: int, seconds: float, share: float = math.inf) -> tuple[list[float], list[float]]:
    """Seconds of alternating runs of the base and of ours, after what makes them ready.

    Args:
        row: what to run.
        runs: the most counted runs of each.
        seconds: after so many no further runs begin, if there are `LEAST_RUNS`.
        share: after so many none begin, if there is one of each.

    Raises:
        Missing: what the row needs is not on this machine.
    """
    most = min(runs, row.runs or runs) * row.times
    if callable(row.warm):
        row.warm()
    elif row.warm:
        _pair(row)
    pairs: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(pairs) < most:
        limit = share if len(pairs) < LEAST_RUNS else min(seconds, share)
        if pairs and time.perf_counter() - began > limit:
            break
        pairs.append(_pair(row))
    return [base for base, _ in pairs], [ours for _, ours in pairs]


def _pair(row: Row) -> tuple[float, float]:
    """Seconds of a run of the base and of one of ours."""
    return _seconds(row.theirs), _seconds(row.ours)


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    found = run()
    passed = time.perf_counter() - start
    return float(found) if isinstance(found, Seconds) else passed

"""The search for an input that breaks a promise, and for a small one of them."""

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import attrs
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from decodekit.testing.violation import BrokenPromiseError
from decodekit.testing.writer import Writer

__all__ = ["Broken", "Draw", "search"]

_SECONDS = 5.0
"""How long smaller counter-examples are looked for; now and then Hypothesis would take minutes."""

T = TypeVar("T")


class Draw(Protocol):
    """Draws one value of a Hypothesis strategy."""

    def __call__(self, strategy: st.SearchStrategy[T], /) -> T:
        """Return the value."""


@attrs.frozen
class Broken:
    """A counter-example: in words, and as a test to paste (empty when there is none)."""

    text: str
    test: str


class _EnoughError(BaseException):
    """Ends the search; Hypothesis lets it through, as it is no `Exception`."""


def search(
    body: Callable[[Any, Draw], None], subject: Any, key: str, promise: str, inputs: int, *, shrink: bool
) -> Broken | None:
    """Try a check on so many inputs; the smallest that breaks it, or None.

    Args:
        body: the check, which draws its inputs and raises `BrokenPromiseError`.
        subject: the plugin under test.
        key: id and title of the check.
        promise: what it promises.
        inputs: how many are tried.
        shrink: whether to look for a smaller input once there is one.
    """
    writer = Writer(subject)
    drawn: list[str] = []
    found: list[tuple[list[str], BrokenPromiseError]] = []
    since: list[float] = []
    stopped: list[bool] = []

    def trial(data: st.DataObject) -> None:
        if since and time.monotonic() - since[0] > _SECONDS:
            stopped.append(True)
            raise _EnoughError
        drawn.clear()

        def draw(strategy: st.SearchStrategy[T], /) -> T:
            value = data.draw(strategy)
            drawn.append(writer.code(value))  # at once: what is wrong may change it in place
            return value

        try:
            body(subject, draw)
        except BrokenPromiseError as violation:
            found.append((list(drawn), violation))
            since.extend([time.monotonic()] if not since else [])
            raise

    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    run = settings(
        max_examples=inputs,
        phases=phases,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=(HealthCheck.too_slow,),
        verbosity=Verbosity.quiet,
    )(given(st.data())(trial))
    try:
        run()
    except BrokenPromiseError:  # the last input that ran is the smallest
        values, violation = found[-1]
    except (_EnoughError, Flaky):
        if not stopped:  # Hypothesis takes an end of the search, too, for an input that behaves differently
            text = "an input failed and then passed: the result depends on more than it"
            return Broken(f"broken: {promise}\n{text}", "")
        values, violation = min(found, key=lambda item: len("".join(item[0])))
    else:
        return None
    return Broken(f"broken: {promise}\n{violation}", writer.test(key, values, promise))

"""A check, and the search for the smallest input that breaks it."""

import itertools
import os
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

import attrs
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from decodekit.errors import ParameterError, nearest
from decodekit.testing.report import Outcome, Report, Result

__all__ = [
    "PROFILES",
    "BrokenPromiseError",
    "Check",
    "Draw",
    "Subject",
    "assertions",
    "check",
    "examples_of",
    "in_order",
    "run_check",
    "run_checks",
]

PROFILES: dict[str, int] = {"fast": 10, "default": 40, "thorough": 400}
"""How many inputs each check tries; DECODEKIT_TEST_PROFILE picks one."""
_HINT_FACTOR = 5
"""A law that nobody promised is tried on more inputs before it is suggested."""

T = TypeVar("T")


class BrokenPromiseError(AssertionError):
    """What a check raises: in words, what went wrong on which input."""


class Subject(Protocol):
    """A plugin under test."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def declares(self, law: str) -> bool:
        """Whether its laws hold this promise."""


class Draw(Protocol):
    """Draws one value of a Hypothesis strategy."""

    def __call__(self, strategy: st.SearchStrategy[T], /) -> T:
        """Return the value."""


S = TypeVar("S", bound=Subject)
_ALL_PHASES = (Phase.generate, Phase.shrink)


@attrs.frozen
class Check(Generic[S]):
    """One property of the conformance kit.

    Attributes:
        id: its number, e.g. ``"P4"``.
        title: its name in words.
        promise: one sentence that says what must hold.
        body: ``(subject, draw)``; draws inputs and raises `BrokenPromiseError`.
        law: the law that must be declared for the check to apply; None when it always does.
        skip: says why the check does not apply to a subject, or None when it does.
        most_examples: fewer inputs than the profile's, for checks that are slow or hardly vary.
    """

    id: str
    title: str
    promise: str
    body: Callable[[S, Draw], None]
    law: str | None
    skip: Callable[[S], str | None]
    most_examples: int

    def skips(self, subject: S) -> str | None:
        """Why the check does not apply, or None."""
        if self.law is not None and not subject.declares(self.law):
            return f"{self.law} is not declared"
        return self.skip(subject)

    def counter_example(self, subject: S, examples: int, *, shrink: bool = True) -> str | None:
        """Search for an input that breaks the promise; the smallest one in words, or None."""

        @settings(
            max_examples=min(examples, self.most_examples),
            phases=_ALL_PHASES if shrink else (Phase.generate,),
            derandomize=True,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=(HealthCheck.too_slow,),
            verbosity=Verbosity.quiet,
        )
        @given(st.data())
        def search(data: st.DataObject) -> None:
            self.body(subject, data.draw)

        try:
            search()
        except BrokenPromiseError as violation:
            return f"broken: {self.promise}\n{violation}"
        except Flaky:
            return (
                f"broken: {self.promise}\nan input failed and then passed: the result depends on more than it"
            )
        return None


def check(
    number: str,
    *,
    law: str | None = None,
    skip: Callable[[Any], str | None] = lambda subject: None,
    most_examples: int = 10_000,
) -> Callable[[Callable[[S, Draw], None]], Check[S]]:
    """Make a `Check` of a function: its name is the title, its docstring the promise."""

    def decorate(body: Callable[[S, Draw], None]) -> Check[S]:
        title = body.__name__.replace("_", " ")
        return Check(number, title, body.__doc__ or title, body, law, skip, most_examples)

    return decorate


def in_order(*groups: Iterable[Check[S]]) -> tuple[Check[S], ...]:
    """The checks of all groups, by the number in their ids."""
    return tuple(sorted(itertools.chain(*groups), key=lambda item: int(item.id.strip("PSQ"))))


def examples_of(profile: str | None) -> int:
    """The number of inputs of a profile; None is DECODEKIT_TEST_PROFILE, and without it ``default``.

    Raises:
        ParameterError: there is no such profile.
    """
    name = profile or os.environ.get("DECODEKIT_TEST_PROFILE") or "default"
    if name not in PROFILES:
        message = f"profile={name!r} must be one of {', '.join(PROFILES)}.{nearest(name, PROFILES)}"
        raise ParameterError(message)
    return PROFILES[name]


def run_check(item: Check[S], subject: S, examples: int) -> Result:
    """Run one check; an undeclared law that seems to hold becomes a hint."""
    reason = item.skips(subject)
    if reason is None:
        found = item.counter_example(subject, examples)
        return Result(item.id, item.title, Outcome.FAILED if found else Outcome.PASSED, found or "")
    undeclared = item.law is not None and not subject.declares(item.law) and item.skip(subject) is None
    tries = _HINT_FACTOR * examples
    if undeclared and item.counter_example(subject, tries, shrink=False) is None:
        detail = f"no counter-example in {tries} inputs; declare {item.law} in LAWS to have it checked"
        return Result(item.id, item.title, Outcome.HINT, detail)
    return Result(item.id, item.title, Outcome.SKIPPED, reason)


def run_checks(checks: Iterable[Check[S]], subject: S, profile: str | None = None) -> Report:
    """Run all checks that apply.

    Raises:
        ConformanceError: names each broken property, its law and the smallest counter-example.
    """
    examples = examples_of(profile)
    report = Report(subject.name, tuple(run_check(item, subject, examples) for item in checks))
    report.raise_failures()
    return report


def assertions(
    checks: Iterable[Check[S]], subject: S, profile: str | None = None
) -> list[tuple[str, Callable[[], None]]]:
    """The checks that apply as ``(id, function)``, for ``pytest.mark.parametrize``."""

    def assertion(item: Check[S]) -> Callable[[], None]:
        def run() -> None:
            report = Report(subject.name, (run_check(item, subject, examples_of(profile)),))
            report.raise_failures()

        return run

    return [(f"{item.id} {item.title}", assertion(item)) for item in checks if item.skips(subject) is None]

"""A check, and the search for the smallest input that breaks it."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

import attrs

from decodekit.contract import BASES, NOUNS, Kind
from decodekit.errors import ParameterError, nearest
from decodekit.testing.advice import ADVICE, Advice
from decodekit.testing.report import Outcome, Report, Result
from decodekit.testing.search import Broken, Draw, search
from decodekit.testing.violation import BrokenPromiseError

__all__ = [
    "PROFILES",
    "Broken",
    "BrokenPromiseError",
    "Check",
    "Draw",
    "Subject",
    "assertions",
    "check",
    "check_exceptions",
    "class_and_instance",
    "examples_of",
    "in_order",
    "listening",
    "run_check",
    "run_checks",
]

PROFILES: dict[str, int] = {"fast": 10, "default": 20, "thorough": 400}
"""How many inputs each check tries; DECODEKIT_TEST_PROFILE picks one."""
_FEWEST = 3
"""Inputs of a check that tries but a part of the profile's."""
_HINT_FACTOR = 5
"""A law that nobody promised is tried on more inputs before it is suggested."""

_LISTENERS: list[Callable[[Result], None]] = []


class Subject(Protocol):
    """A plugin under test."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def declares(self, law: str) -> bool:
        """Whether its laws hold this promise."""


S = TypeVar("S", bound=Subject)


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
        share: the part of the profile's inputs that it tries, for checks of which each input tells much.
        shrinks: whether a smaller counter-example is searched for; frequencies would lead to noise.
    """

    id: str
    title: str
    promise: str
    body: Callable[[S, Draw], None]
    law: str | None
    skip: Callable[[S], str | None]
    most_examples: int = 10_000
    share: float = 1.0
    shrinks: bool = True

    @property
    def key(self) -> str:
        """Its id and its title, by which it is named."""
        return f"{self.id} {self.title}"

    def skips(self, subject: S) -> str | None:
        """Why the check does not apply, or None."""
        if self.law is not None and not subject.declares(self.law):
            return f"{self.law} is not declared"
        return self.skip(subject)

    def inputs(self, examples: int) -> int:
        """How many inputs it tries in a profile of so many."""
        return min(max(round(self.share * examples), _FEWEST), examples, self.most_examples)

    def counter_example(self, subject: S, examples: int, *, shrink: bool = True) -> str | None:
        """Search for an input that breaks the promise; the smallest one in words, or None."""
        found = self.search(subject, examples, shrink=shrink)
        return found.text if found else None

    def search(self, subject: S, examples: int, *, shrink: bool = True) -> Broken | None:
        """Search for an input that breaks the promise; the smallest one, or None."""
        inputs = self.inputs(examples)
        return search(self.body, subject, self.key, self.promise, inputs, shrink=shrink and self.shrinks)


def check(
    number: str,
    *,
    law: str | None = None,
    skip: Callable[[Any], str | None] = lambda subject: None,
    most_examples: int = 10_000,
    share: float = 1.0,
    shrinks: bool = True,
) -> Callable[[Callable[[S, Draw], None]], Check[S]]:
    """Make a `Check` of a function: its name is the title, its docstring the promise."""

    def decorate(body: Callable[[S, Draw], None]) -> Check[S]:
        title = body.__name__.replace("_", " ")
        return Check(number, title, body.__doc__ or title, body, law, skip, most_examples, share, shrinks)

    return decorate


def class_and_instance(kind: Kind, plugin: Any) -> tuple[Any, Any]:
    """The class under test, and the only instance to look at, or None.

    Raises:
        ParameterError: ``plugin`` is neither a class nor an instance of this kind.
    """
    cls = plugin if isinstance(plugin, type) else type(plugin)
    if not issubclass(cls, BASES[kind]):
        message = (
            f"{plugin!r} is no {NOUNS[kind]}: it must be a class or an instance of "
            f"decodekit.{BASES[kind].__name__}; decodekit.testing.plugins_of gives that of a name"
        )
        raise ParameterError(message)
    return cls, None if isinstance(plugin, type) else plugin


def in_order(*groups: Iterable[Check[S]]) -> tuple[Check[S], ...]:
    """The checks of all groups, by the letter and the number of their ids."""
    return tuple(sorted(itertools.chain(*groups), key=lambda item: (item.id[0], int(item.id[1:]))))


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


def run_check(
    item: Check[S], subject: S, examples: int, exceptions: Mapping[str, str] | None = None
) -> Result:
    """Run one check; an undeclared law that seems to hold becomes a hint, a declared exception is shown."""
    reason = item.skips(subject)
    if reason is None:
        found = item.search(subject, examples)
        allowed = _exceptions(subject, exceptions)
        excuse = allowed.get(item.key) or allowed.get(item.id)
        return _tried(item, found, excuse, examples)
    undeclared = item.law is not None and not subject.declares(item.law) and item.skip(subject) is None
    tries = _HINT_FACTOR * examples
    if undeclared and item.search(subject, tries, shrink=False) is None:
        detail = f"no counter-example in {tries} inputs; declare {item.law} in LAWS to have it checked"
        return Result(item.id, item.title, Outcome.HINT, detail, item.law)
    return Result(item.id, item.title, Outcome.SKIPPED, reason, item.law)


def _tried(item: Check[Any], found: Broken | None, excuse: str | None, examples: int) -> Result:
    if found is None and excuse is None:
        return Result(item.id, item.title, Outcome.PASSED, "", item.law)
    if found is None:
        detail = f"no counter-example in {examples} inputs for the declared exception ({excuse}): remove it"
        return Result(item.id, item.title, Outcome.HINT, detail, item.law)
    if excuse is not None:
        detail = f"{excuse}\n{found.text}"
        return Result(item.id, item.title, Outcome.EXCEPTED, detail, item.law, test=found.test)
    advice = ADVICE.get(item.key, Advice())
    law = f"{item.law}: keep it, or take it out of LAWS. " if item.law else ""
    return Result(
        item.id, item.title, Outcome.FAILED, found.text, item.law, advice.why, law + advice.remedy, found.test
    )


def _exceptions(subject: Subject, given: Mapping[str, str] | None) -> Mapping[str, str]:
    """Check -> reason: what the class declares as ``EXCEPTIONS``, and what the caller gives beside it."""
    return {**getattr(getattr(subject, "cls", None), "EXCEPTIONS", {}), **(given or {})}


def check_exceptions(checks: Iterable[Check[Any]], exceptions: Mapping[str, str]) -> None:
    """Raise `ParameterError` for a declared exception that names no check, or gives no reason."""
    known = {name for item in checks for name in (item.id, item.key)}
    for name, reason in exceptions.items():
        if name not in known:
            message = f"exceptions names {name!r}, and there is no such check.{nearest(name, known)}"
            raise ParameterError(message)
        if not isinstance(reason, str) or not reason.strip():
            message = f"exceptions[{name!r}]={reason!r} is not allowed: it must say why, in a sentence"
            raise ParameterError(message)


@contextlib.contextmanager
def listening(listener: Callable[[Result], None]) -> Iterator[None]:
    """Tell ``listener`` each result of `run_checks` as soon as it is there."""
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)


def run_checks(
    checks: Iterable[Check[S]],
    subject: S,
    profile: str | None = None,
    exceptions: Mapping[str, str] | None = None,
) -> Report:
    """Run all checks that apply.

    Raises:
        ConformanceError: names each broken property, its law and the smallest counter-example.
        ParameterError: a declared exception names no check, or gives no reason.
    """
    examples, checks = examples_of(profile), tuple(checks)
    check_exceptions(checks, _exceptions(subject, exceptions))
    results = []
    for item in checks:
        results.append(run_check(item, subject, examples, exceptions))
        for listener in _LISTENERS:
            listener(results[-1])
    report = Report(subject.name, tuple(results))
    report.raise_failures()
    return report


def assertions(
    checks: Iterable[Check[S]],
    subject: S,
    profile: str | None = None,
    exceptions: Mapping[str, str] | None = None,
) -> list[tuple[str, Callable[[], Result]]]:
    """The checks that apply as ``(id, function)``, for ``pytest.mark.parametrize``."""
    checks = tuple(checks)
    check_exceptions(checks, _exceptions(subject, exceptions))

    def assertion(item: Check[S]) -> Callable[[], Result]:
        def run() -> Result:
            result = run_check(item, subject, examples_of(profile), exceptions)
            Report(subject.name, (result,)).raise_failures()
            return result

        return run

    return [(item.key, assertion(item)) for item in checks if item.skips(subject) is None]

"""What the conformance kit has to say about a plugin."""

import enum
from typing import Any

import attrs

from decodekit.errors import DecodekitError

__all__ = ["ConformanceError", "Outcome", "Report", "Result"]


class Outcome(enum.StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It does not apply, for the reason in the detail."""
    HINT = "hint"
    """A law that is not declared, and for which no counter-example was found."""
    EXCEPTED = "excepted"
    """It failed, as the author has declared with a reason."""


@attrs.frozen
class Result:
    """The outcome of one check.

    Attributes:
        id: the property's number, e.g. ``"P4"``.
        title: its name in words, e.g. ``"row independence"``.
        outcome: how it ended.
        detail: why it was skipped, or what failed with the smallest counter-example; may be empty.
        law: the promise in ``LAWS`` that it checks; None when it holds for every plugin.
        why: why it matters, of a check that failed.
        remedy: what to do, of a check that failed.
        test: the counter-example as a test to paste; empty when it can't be written down.
    """

    id: str
    title: str
    outcome: Outcome
    detail: str = ""
    law: str | None = None
    why: str = ""
    remedy: str = ""
    test: str = ""

    def __str__(self) -> str:
        head = f"{self.outcome:<8} {self.id:<4} {self.title}"
        return f"{head}: {self.detail}" if self.detail else head

    def explanation(self) -> str:
        """A failure in full: the law, the counter-example, why it matters, what to do, and a test."""
        parts = [f"{self.id} {self.title}: {self.detail}"]
        parts += [f"Declared: {self.law} in LAWS"] if self.law else []
        parts += [f"Why it matters: {self.why}"] if self.why else []
        parts += [f"What to do: {self.remedy}"] if self.remedy else []
        parts += [f"As a test:\n\n{self.test}\n"] if self.test else []
        return "\n".join(parts)


@attrs.frozen
class Report:
    """The outcomes of all checks of one plugin, in the order of their numbers."""

    name: str
    results: tuple[Result, ...]

    def of(self, outcome: Outcome) -> tuple[Result, ...]:
        """The results that ended so."""
        return tuple(result for result in self.results if result.outcome is outcome)

    def of_failures(self) -> tuple[Result, ...]:
        """The results that failed."""
        return self.of(Outcome.FAILED)

    def raise_failures(self) -> None:
        """Raise `ConformanceError` when a check has failed."""
        if self.of(Outcome.FAILED):
            raise ConformanceError(self)

    def as_data(self) -> dict[str, Any]:
        """The report as data for JSON."""
        results = [attrs.asdict(result) | {"outcome": str(result.outcome)} for result in self.results]
        return {"name": self.name, "conforms": not self.of(Outcome.FAILED), "results": results}

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self.of(outcome))} {outcome}" for outcome in Outcome if self.of(outcome))
        return "\n".join(
            [f"{self.name}: {counts or 'nothing to check'}", *(f"  {line}" for line in self.results)]
        )


class ConformanceError(DecodekitError, AssertionError):
    """A plugin breaks its contract or a law that it declares.

    Attributes:
        report: the outcomes of all checks that ran.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        failures = "\n\n".join(item.explanation() for item in report.of(Outcome.FAILED))
        super().__init__(f"{report.name} does not conform.\n{failures}")

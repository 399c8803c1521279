"""What the conformance kit has to say about a plugin."""

import enum

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


@attrs.frozen
class Result:
    """The outcome of one check.

    Attributes:
        id: the property's number, e.g. ``"P4"``.
        title: its name in words, e.g. ``"row independence"``.
        outcome: how it ended.
        detail: why it was skipped, or what failed with the smallest counter-example; may be empty.
    """

    id: str
    title: str
    outcome: Outcome
    detail: str = ""

    def __str__(self) -> str:
        head = f"{self.outcome:<8} {self.id:<4} {self.title}"
        return f"{head}: {self.detail}" if self.detail else head


@attrs.frozen
class Report:
    """The outcomes of all checks of one plugin, in the order of their numbers."""

    name: str
    results: tuple[Result, ...]

    def of(self, outcome: Outcome) -> tuple[Result, ...]:
        """The results that ended so."""
        return tuple(result for result in self.results if result.outcome is outcome)

    def raise_failures(self) -> None:
        """Raise `ConformanceError` when a check has failed."""
        if self.of(Outcome.FAILED):
            raise ConformanceError(self)

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
        failures = "\n\n".join(f"{item.id} {item.title}: {item.detail}" for item in report.of(Outcome.FAILED))
        super().__init__(f"{report.name} does not conform.\n{failures}")

import pytest
from decodekit import DecodekitError
from decodekit.testing import ConformanceError, Outcome, Report, Result

PASSED = Result("P1", "shape", Outcome.PASSED)
FAILED = Result("P9", "shift invariance", Outcome.FAILED, "broken: f(x + c) is f(x)")


def test_a_report_reads_as_a_table():
    assert str(Report("processor mild", (PASSED, FAILED))).splitlines() == [
        "processor mild: 1 passed, 1 failed",
        "  passed   P1   shape",
        "  failed   P9   shift invariance: broken: f(x + c) is f(x)",
    ]


def test_a_report_of_nothing_says_so():
    assert str(Report("processor mild", ())) == "processor mild: nothing to check"


def test_failures_are_raised_with_the_report():
    report = Report("processor mild", (PASSED, FAILED))
    with pytest.raises(ConformanceError, match="processor mild does not conform") as caught:
        report.raise_failures()
    assert caught.value.report is report
    assert isinstance(caught.value, (DecodekitError, AssertionError))


def test_without_failures_nothing_is_raised():
    assert Report("processor mild", (PASSED,)).raise_failures() is None

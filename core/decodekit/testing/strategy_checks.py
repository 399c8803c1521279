"""The conformance kit for strategies: does a class keep the contract and the laws that it declares?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decodekit.strategy import Strategy
from decodekit.testing import (
    strategy_admission,
    strategy_batches,
    strategy_conduct,
    strategy_drafts,
    strategy_leaks,
    strategy_reports,
    strategy_results,
    strategy_search,
)
from decodekit.testing.check import Check, assertions, class_and_instance, in_order, run_checks
from decodekit.testing.report import Report, Result
from decodekit.testing.strategy_subject import StrategySubject

__all__ = ["STRATEGY_CHECKS", "check_strategy", "strategy_checks"]


STRATEGY_CHECKS: tuple[Check[StrategySubject], ...] = in_order(
    strategy_results.CHECKS,
    strategy_batches.CHECKS,
    strategy_reports.CHECKS,
    strategy_conduct.CHECKS,
    strategy_search.CHECKS,
    strategy_drafts.CHECKS,
    strategy_leaks.CHECKS,
    strategy_admission.CHECKS,
)
"""Every check, in the order of the numbers."""


def check_strategy(
    strategy: type[Strategy] | Strategy,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    profile: str | None = None,
    exceptions: Mapping[str, str] | None = None,
) -> Report:
    """Check a strategy against its contract and its declared laws.

    It decodes from small models with known answers: ragged batches, several EOS ids, chains of
    processors, seeds, stop strings, streamers, errors in the middle.

    Args:
        strategy: a class, or an instance when only its own parameters are of interest.
        examples: parameter values to try, as dictionaries; left out, they are drawn from the
            declared ranges and choices.
        profile: ``fast``, ``default`` or ``thorough``; by default DECODEKIT_TEST_PROFILE.
        exceptions: properties that do not hold, each with the reason: ``{"P31": "..."}``. They are
            shown and don't fail. The class can declare them for good, as ``EXCEPTIONS``.

    Returns:
        What passed, what was skipped and why, and which undeclared laws seem to hold.

    Raises:
        ConformanceError: names each broken property, its law and the smallest counter-example.
        ParameterError: ``strategy`` is none, there is no such profile, a parameter that needs ``examples``
            got none, or an exception names no property or gives no reason.
    """
    return run_checks(STRATEGY_CHECKS, _subject(strategy, examples), profile, exceptions)


def strategy_checks(
    strategy: type[Strategy] | Strategy,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    profile: str | None = None,
    exceptions: Mapping[str, str] | None = None,
) -> list[tuple[str, Callable[[], Result]]]:
    """The checks that apply, as ``(id, function)`` pairs for ``pytest.mark.parametrize``.

    Arguments and errors are those of `check_strategy`; each function raises on its own.
    """
    return assertions(STRATEGY_CHECKS, _subject(strategy, examples), profile, exceptions)


def _subject(strategy: type[Strategy] | Strategy, examples: Sequence[Mapping[str, Any]]) -> StrategySubject:
    return StrategySubject(*class_and_instance("strategies", strategy), examples)

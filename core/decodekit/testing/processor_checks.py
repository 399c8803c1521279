"""The conformance kit for processors: does a class keep the contract and the laws that it declares?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decodekit.processor import Processor
from decodekit.testing import (
    processor_basics,
    processor_chains,
    processor_constraints,
    processor_history,
    processor_laws,
    processor_parameters,
)
from decodekit.testing.check import Check, assertions, class_and_instance, in_order, run_checks
from decodekit.testing.processor_subject import Oracle, ProcessorSubject, Validator
from decodekit.testing.report import Report, Result

__all__ = ["PROCESSOR_CHECKS", "check_processor", "processor_checks"]


PROCESSOR_CHECKS: tuple[Check[ProcessorSubject], ...] = in_order(
    processor_basics.CHECKS,
    processor_laws.CHECKS,
    processor_parameters.CHECKS,
    processor_history.CHECKS,
    processor_chains.CHECKS,
    processor_constraints.CHECKS,
)
"""Every check, in the order of the numbers."""


def check_processor(
    processor: type[Processor] | Processor,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    oracle: Oracle | None = None,
    accepts: Validator | None = None,
    profile: str | None = None,
    exceptions: Mapping[str, str] | None = None,
) -> Report:
    """Check a processor against its contract and its declared laws.

    Args:
        processor: a class, or an instance when only its own parameters are of interest.
        examples: parameter values to try, as dictionaries; left out, they are drawn from the
            declared ranges and choices.
        oracle: ``oracle(row, **parameters) -> list[float]``, a slow reference for one row
            (`OracleRow`) in plain Python floats; without it P21 and P26 are skipped.
        accepts: ``accepts(prompt, tokens, **parameters) -> bool``, for a processor that constrains answers:
            whether an answer (token ids, with EOS at the end) is as it must be; without it S27 is skipped.
        profile: ``fast``, ``default`` or ``thorough``; by default DECODEKIT_TEST_PROFILE.
        exceptions: properties that do not hold, each with the reason: ``{"P31": "..."}``. They are
            shown and don't fail. The class can declare them for good, as ``EXCEPTIONS``.

    Returns:
        What passed, what was skipped and why, and which undeclared laws seem to hold.

    Raises:
        ConformanceError: names each broken property, its law and the smallest counter-example.
        ParameterError: ``processor`` is none, there is no such profile, a parameter that needs ``examples``
            got none, or an exception names no property or gives no reason.
    """
    return run_checks(PROCESSOR_CHECKS, _subject(processor, examples, oracle, accepts), profile, exceptions)


def processor_checks(
    processor: type[Processor] | Processor,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    oracle: Oracle | None = None,
    accepts: Validator | None = None,
    profile: str | None = None,
    exceptions: Mapping[str, str] | None = None,
) -> list[tuple[str, Callable[[], Result]]]:
    """The checks that apply, as ``(id, function)`` pairs for ``pytest.mark.parametrize``.

    Arguments and errors are those of `check_processor`; each function raises on its own.
    """
    return assertions(PROCESSOR_CHECKS, _subject(processor, examples, oracle, accepts), profile, exceptions)


def _subject(
    processor: type[Processor] | Processor,
    examples: Sequence[Mapping[str, Any]],
    oracle: Oracle | None,
    accepts: Validator | None,
) -> ProcessorSubject:
    return ProcessorSubject(*class_and_instance("processors", processor), examples, oracle, accepts)

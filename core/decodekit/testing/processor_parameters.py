"""P17, P18, P21, P30: what the parameters of a processor must do."""

from collections.abc import Iterator
from typing import Any

import attrs
import torch
from hypothesis import strategies as st

from decodekit.params import ParamInfo, params_of
from decodekit.testing.check import BrokenPromiseError, Draw, check
from decodekit.testing.processor_subject import Case, ProcessorSubject, expect

__all__ = ["CHECKS"]


def _without_neutral(subject: ProcessorSubject) -> str | None:
    return None if _neutral_values(subject) else "no parameter declares a neutral value"


def _without_range(subject: ProcessorSubject) -> str | None:
    return (
        None
        if any(info.range for info in params_of(subject.cls).values())
        else "no parameter declares a range"
    )


def _without_numbers(subject: ProcessorSubject) -> str | None:
    return None if _numbers(subject) else "it has no numeric parameter"


def without_oracle(subject: ProcessorSubject) -> str | None:
    """Why a check that compares with an oracle does not apply, or None."""
    return None if subject.oracle else "no oracle was given: pass oracle=, a slow reference in plain Python"


@check("P17", skip=_without_neutral)
def neutral_parameter(subject: ProcessorSubject, draw: Draw) -> None:
    """With its parameters at their neutral values the processor changes no bit."""
    case = draw(subject.cases())
    neutral = case.with_parameters(**_neutral_values(subject))
    expect(neutral.bound().is_neutral, neutral, "is_neutral is False, so that chains would not drop it")
    out = neutral.run()
    expect(torch.equal(out, case.logits), neutral, f"the result is {out.tolist()}")


@check("P18", skip=_without_range)
def extreme_parameters(subject: ProcessorSubject, draw: Draw) -> None:
    """At the ends of its ranges it still gives no NaN, empties no row and revives no token."""
    ranged = [info for info in params_of(subject.cls).values() if info.range]
    info = draw(st.sampled_from(ranged))
    case, value = draw(subject.cases()), draw(st.sampled_from(list(_ends(info))))
    case = case.with_parameters(**{info.name: value})
    out = case.run()
    emptied = out.isneginf().all(dim=-1).any() and not subject.declares("may_empty")
    revived = (case.logits.isneginf() & ~out.isneginf()).any() and not subject.declares("may_revive")
    bad = (out.isnan() | out.isposinf()).any()
    expect(not (emptied or revived or bad), case, f"the result is {out.tolist()}")


@check("P21", skip=without_oracle)
def oracle_equality(subject: ProcessorSubject, draw: Draw) -> None:
    """The result is that of the oracle, but for which of two tied tokens is cut."""
    compare_with_oracle(subject, draw(subject.float64_cases()))


@check("P26", skip=without_oracle)
def prompt_and_generated(subject: ProcessorSubject, draw: Draw) -> None:
    """The line between prompt and generated tokens counts just as the oracle says."""
    case = draw(subject.float64_cases())
    lengths = torch.stack([torch.tensor(draw(st.integers(1, int(size)))) for size in case.history.lengths])
    compare_with_oracle(
        subject, attrs.evolve(case, history=attrs.evolve(case.history, prompt_lengths=lengths))
    )


def compare_with_oracle(subject: ProcessorSubject, case: Case) -> None:
    """Raise `BrokenPromiseError` when a row differs from what the subject's oracle says."""
    if subject.oracle is None:
        return
    out = case.run()
    parameters = {name: getattr(case.processor, name) for name in params_of(subject.cls)}
    for index in range(len(out)):
        row = case.row(index)
        wanted = subject.oracle(row, **parameters)
        same = torch.allclose(
            _by_logit(row.logits, out[index].tolist()), _by_logit(row.logits, wanted), 1e-9, 1e-9
        )
        expect(same, case, f"row {index} gave {out[index].tolist()}, the oracle says {wanted}")


def _by_logit(logits: list[float], result: list[float]) -> torch.Tensor:
    """The result in the order of the logits, so that tied tokens may be exchanged."""
    return torch.tensor([value for _, value in sorted(zip(logits, result, strict=True))], dtype=torch.float64)


@check("P30", skip=_without_numbers, most_examples=20)
def parameter_validation(subject: ProcessorSubject, draw: Draw) -> None:
    """NaN and values outside a range are refused when the processor is made, with the parameter's name."""
    info = draw(st.sampled_from(_numbers(subject)))
    case, value = draw(subject.cases()), draw(st.sampled_from(list(_refused(info))))
    call = f"{subject.cls.__name__}({info.name}={value!r})"
    try:
        case.with_parameters(**{info.name: value})
    except (ValueError, TypeError) as error:
        if info.name not in str(error):
            message = f"{call} was refused without a word of {info.name}: {error}"
            raise BrokenPromiseError(message) from error
        return
    message = f"{call} was accepted; declare the parameter with decodekit.param and a range"
    raise BrokenPromiseError(message)


def _neutral_values(subject: ProcessorSubject) -> dict[str, Any]:
    infos = params_of(subject.cls).items()
    return {name: info.neutral for name, info in infos if info.neutral is not attrs.NOTHING}


def _numbers(subject: ProcessorSubject) -> list[ParamInfo]:
    return [info for info in params_of(subject.cls).values() if info.type_name in ("int", "float")]


def _ends(info: ParamInfo) -> Iterator[int | float]:
    """The ends of the range, or what is very near to an open end."""
    if info.range is None:
        return
    step = 1 if info.type_name == "int" else 1e-6
    kind = int if info.type_name == "int" else float
    for end, is_open, inwards in (
        (info.range.low, info.range.low_open, step),
        (info.range.high, info.range.high_open, -step),
    ):
        if abs(end) != torch.inf:
            yield kind(end + inwards) if is_open else kind(end)
        else:
            yield kind(-inwards / step * 1e3)


def _refused(info: ParamInfo) -> Iterator[float]:
    """Numbers outside the range, and NaN."""
    yield torch.nan
    if info.range is None:
        return
    for end, is_open, outwards in (
        (info.range.low, info.range.low_open, -1),
        (info.range.high, info.range.high_open, 1),
    ):
        if is_open:
            yield end
        elif abs(end) != torch.inf:
            yield end + outwards


CHECKS = (neutral_parameter, extreme_parameters, oracle_equality, prompt_and_generated, parameter_validation)

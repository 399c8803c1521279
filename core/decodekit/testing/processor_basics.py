"""P1 to P8: what every processor must do, whatever it computes."""

import random

import torch
from hypothesis import strategies as st

from decodekit.testing.check import Draw, check
from decodekit.testing.processor_subject import Case, ProcessorSubject, expect

__all__ = ["CHECKS"]

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@check("P1")
def shape_dtype_and_device(subject: ProcessorSubject, draw: Draw) -> None:
    """The result has the shape, dtype and device of the logits."""
    case = draw(subject.cases(dtypes=_DTYPES))
    out = case.run()
    for name in ("shape", "dtype", "device"):
        got, wanted = getattr(out, name, None), getattr(case.logits, name)
        expect(got == wanted, case, f"the {name} of the result is {got} and must be {wanted}")


@check("P2")
def purity(subject: ProcessorSubject, draw: Draw) -> None:
    """The call changes neither the logits nor the history in place."""
    case = draw(subject.cases())
    mine = Case(
        case.processor, case.context, case.logits.clone(), case.history.select(range(len(case.history)))
    )
    mine.run()
    expect(torch.equal(mine.logits, case.logits), case, f"the logits became {mine.logits.tolist()}")
    for name in ("tokens", "pads", "prompt_lengths"):
        same = torch.equal(getattr(mine.history, name), getattr(case.history, name))
        expect(same, case, f"history.{name} was changed")


@check("P3")
def determinism(subject: ProcessorSubject, draw: Draw) -> None:
    """Two calls give the same result, and neither draws a random number."""
    case = draw(subject.cases())
    state, python_state = torch.get_rng_state(), random.getstate()
    first, second = case.run(), case.run()
    drew = not torch.equal(state, torch.get_rng_state()) or python_state != random.getstate()
    expect(
        not drew,
        case,
        "it drew from the global random state; write a random processor in its exact mixture form",
    )
    expect(_same(first, second), case, f"the first call gave {first.tolist()}, the second {second.tolist()}")


@check("P4")
def row_independence(subject: ProcessorSubject, draw: Draw) -> None:
    """A row alone gives what it gives in a batch."""
    case = draw(subject.cases(least_rows=2))
    together = case.run()
    for index in range(len(together)):
        alone = case.run(logits=case.logits[[index]], history=case.history.select([index]))
        message = f"row {index} gave {together[index].tolist()} in the batch and {alone[0].tolist()} alone"
        expect(_same(together[index], alone[0]), case, message)


@check("P5")
def batch_order(subject: ProcessorSubject, draw: Draw) -> None:
    """Reordering the rows of the batch reorders the result."""
    case = draw(subject.cases(least_rows=2))
    order = draw(st.permutations(range(len(case.logits))))
    reordered = case.run(logits=case.logits[order], history=case.history.select(order))
    message = f"in the order {order} the rows gave {reordered.tolist()}"
    expect(_same(case.run()[order], reordered), case, message)


@check("P6")
def no_nan(subject: ProcessorSubject, draw: Draw) -> None:
    """The result holds neither NaN nor +inf."""
    case = draw(subject.cases())
    out = case.run()
    bad = out.isnan() | out.isposinf()
    expect(not bad.any(), case, f"the result is {out.tolist()}")


@check("P7", skip=lambda subject: "may_empty is declared" if subject.declares("may_empty") else None)
def support(subject: ProcessorSubject, draw: Draw) -> None:
    """A row that has a possible token keeps one."""
    case = draw(subject.cases())
    out = case.run()
    alive = ~out.isneginf().all(dim=-1)
    expect(
        alive.all(),
        case,
        f"no token is left in row {int(alive.int().argmin())}; keep one, or declare may_empty",
    )


@check("P8", skip=lambda subject: "may_revive is declared" if subject.declares("may_revive") else None)
def no_resurrection(subject: ProcessorSubject, draw: Draw) -> None:
    """A token that is impossible (-inf) stays so."""
    case = draw(subject.cases())
    out = case.run()
    revived = case.logits.isneginf() & ~out.isneginf()
    expect(
        not revived.any(),
        case,
        f"(row, token) {revived.nonzero().tolist()} came back; the result is {out.tolist()}",
    )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two results agree: -inf in the same places, the rest but for rounding."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)


CHECKS = (
    shape_dtype_and_device,
    purity,
    determinism,
    row_independence,
    batch_order,
    no_nan,
    support,
    no_resurrection,
)

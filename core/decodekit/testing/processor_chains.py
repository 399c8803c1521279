"""P32 to P35: a processor beside others, and in a chain that shows it no more of a row than it needs."""

import contextlib
from typing import ClassVar

import attrs
import torch
from hypothesis import assume
from hypothesis import strategies as st

from decodekit.chain import Chain
from decodekit.errors import ParameterError, UnknownNameError
from decodekit.head import Cut, Head
from decodekit.history import History
from decodekit.place import Place, Scope
from decodekit.processor import Processor
from decodekit.registry import registry
from decodekit.testing import generators
from decodekit.testing.check import Draw, check, examples_of
from decodekit.testing.processor_laws import same_law
from decodekit.testing.processor_subject import Case, ProcessorSubject, apply, expect, states_of
from decodekit.testing.search import search

__all__ = ["CHECKS", "order_witness"]

_MOST = 25
"""Inputs a check; the long way and the short one differ at the first of them, or hardly at all."""


@attrs.frozen
class _Largest(Processor):
    """Keep the k largest logits and what ties with the last of them."""

    PLACE: ClassVar[Place] = Place(scope=Scope.SUPPORT)
    k: int = 3

    def __call__(self, logits: torch.Tensor, history: History) -> torch.Tensor:
        floor = logits.topk(min(self.k, logits.shape[-1])).values[:, -1:]
        return logits.masked_fill(logits < floor, -torch.inf)

    @property
    def reach(self) -> int:
        return self.k + 1

    def cut(self, head: Head) -> Cut:
        return head.best(self.k)


def _partners(subject: ProcessorSubject) -> dict[str, st.SearchStrategy[Processor]]:
    """Instances of those that ``commutes_with`` names, are installed and have ranges."""
    found: dict[str, st.SearchStrategy[Processor]] = {}
    for name in subject.cls.LAWS.commutes_with:
        with contextlib.suppress(UnknownNameError, ParameterError):
            cls: type[Processor] = registry().entry("processors", name).cls
            found[name] = generators.instances(cls, f"processor {name}", None, ())
    return found


def _alone(subject: ProcessorSubject) -> str | None:
    if not subject.cls.LAWS.commutes_with:
        return "commutes_with names no processor"
    return None if _partners(subject) else "none that commutes_with names is installed and has ranges"


@check("P32", skip=_alone)
def chain_algebra(subject: ProcessorSubject, draw: Draw) -> None:
    """With each processor that ``commutes_with`` names the order makes no difference."""
    case = draw(subject.float64_cases(distinct=True))
    partners = _partners(subject)
    other = draw(partners[draw(st.sampled_from(sorted(partners)))])
    _expect_order(case, other)


def order_witness(
    first: Processor | type[Processor], second: Processor | type[Processor], *, profile: str | None = None
) -> str | None:
    """Look for a row on which the order of two processors makes a difference.

    Args:
        first: a class or an instance.
        second: another one.
        profile: ``fast``, ``default`` or ``thorough``; by default DECODEKIT_TEST_PROFILE.

    Returns:
        The smallest such row and what comes of it in both orders; None when none was found.

    Raises:
        ParameterError: there is no such profile, or a parameter has neither a range nor a default.
    """
    one, other = (
        ProcessorSubject(item) if isinstance(item, type) else ProcessorSubject(type(item), item)
        for item in (first, second)
    )

    def body(subject: ProcessorSubject, draw: Draw) -> None:
        _expect_order(draw(subject.float64_cases(distinct=True)), draw(other.processors()))

    key = f"the order of {one.name} and {other.name}"
    found = search(body, one, key, f"{key} makes no difference", examples_of(profile), shrink=True)
    return found.text if found else None


def _expect_order(case: Case, other: Processor) -> None:
    """Raise `BrokenPromiseError` where a processor and another one give two laws in their two orders."""
    behind, before = other.bind(case.context), attrs.evolve(case, processor=other)
    first = apply(behind, case.run(), case.history)
    second = case.run(logits=before.run())
    alive = ~(first.isneginf().all(dim=-1) | second.isneginf().all(dim=-1))
    message = f"before {other!r} it gives {first.tolist()}, behind it {second.tolist()}"
    expect(same_law(first[alive], second[alive]), case, message)


@check("P33", most_examples=_MOST)
def short_chain(subject: ProcessorSubject, draw: Draw) -> None:
    """In a chain that cuts, before it and after it, it gives what it gives over the whole vocabulary."""
    case = draw(subject.cases())
    k = draw(st.integers(1, 5))
    chain = Chain([case.bound()]) if draw(st.booleans()) else Chain([_Largest(k), case.bound(), _Largest(k)])
    states: list[tuple[object, ...]] = [()] * len(case.logits)
    if subject.stateful:
        kept = states_of(case.bound(), case.logits, case.history)  # type: ignore[arg-type]  # it is stateful
        states = [(state,) for state in kept]
    whole, memories = chain.apply(case.logits, case.history, states)
    assume(not whole.isneginf().all(dim=-1).any())
    short, short_memories = chain.run(case.logits, case.history, states)
    same = same_law(_by_logit(case.logits, whole), _by_logit(case.logits, short.dense))
    expect(same, case, f"{chain}: {whole.tolist()}, shortened {short.dense.tolist()}")
    token = int(whole[0].argmax())
    if subject.stateful:
        one, other = (chain.advance(states[0], token, kept[0]) for kept in (memories, short_memories))
        near = all(abs(a - b) < 1e-4 for a, b in zip(one, other, strict=True)) if _numbers(one) else True
        expect(near, case, f"{chain}: the state becomes {one}, shortened {other}")


def _by_logit(logits: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """The result in the order of the logits, so that which of two tied tokens is cut does not tell."""
    by_result = out.argsort(dim=-1)
    order = logits.gather(-1, by_result).argsort(dim=-1, stable=True)
    return out.gather(-1, by_result).gather(-1, order)


def _numbers(states: tuple[object, ...]) -> bool:
    return all(isinstance(state, float) for state in states)


@check("P34", most_examples=_MOST, skip=lambda subject: None if _has_cut(subject) else "it has no short form")
def short_form(subject: ProcessorSubject, draw: Draw) -> None:
    """Where its cut is clear, from however few of the largest logits, it keeps what the processor keeps."""
    case = draw(subject.cases())
    processor = case.bound()
    assume(not processor.is_neutral)
    x = case.logits
    cut = processor.cut(Head.of(x, draw(st.integers(1, x.shape[-1]))))
    if cut is None:
        return
    kept, short = ~case.run().isneginf(), (x >= cut.floor) & ~x.isneginf()
    wrong = (kept != short).any(dim=-1) & (True if cut.clear is None else cut.clear)
    expect(not wrong.any(), case, f"it keeps {kept.tolist()}, its short form {short.tolist()}")


def _has_cut(subject: ProcessorSubject) -> bool:
    return subject.cls.cut is not Processor.cut


@check(
    "P35",
    most_examples=_MOST,
    skip=lambda subject: "it sees all of a row" if subject.cls.PLACE.scope is Scope.ALL else None,
)
def scope(subject: ProcessorSubject, draw: Draw) -> None:
    """It gives the possible tokens alone, in descending order and with another history, the same law."""
    case = draw(subject.float64_cases(distinct=True))
    possible = (~case.logits.isneginf()).sum(dim=-1)
    count = int(possible.min())
    rows = (possible == count).nonzero()[:, 0]  # a row with more would lose some
    if subject.cls.PLACE.scope is Scope.HEAD:
        count = draw(st.integers(1, count))
    no_history = History.of([[0]] * len(rows))
    history = no_history if subject.stateful else case.history.select(rows)
    whole = attrs.evolve(case, logits=case.logits[rows], history=history)
    head = Head.of(whole.logits, count)
    found = case.run(logits=head.logits, history=no_history)
    wanted = whole.run().gather(1, head.ids)
    same = same_law(found, wanted)
    if subject.cls.PLACE.scope is Scope.HEAD:
        same = torch.allclose(found, wanted, 1e-9, 1e-9) and bool((wanted.diff(dim=-1) <= 0).all())
    expect(same, case, f"of the whole row it makes {wanted.tolist()}, of its largest {found.tolist()}")


CHECKS = (chain_algebra, short_chain, short_form, scope)

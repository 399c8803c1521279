"""P9 to P16, P19, P20: the laws that a processor may declare in LAWS."""

from typing import Any

import attrs
import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

from decodekit.params import build, params_of
from decodekit.testing.check import Draw, check
from decodekit.testing.processor_subject import Case, ProcessorSubject, expect

__all__ = ["CHECKS", "same_law"]

_ROUNDING = 1e-9
"""Relative; every law is checked in float64."""


def same_law(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of logits [B, V] have the same possible tokens and the same probabilities."""
    p, q = (torch.softmax(x.double(), dim=-1).nan_to_num() for x in (a, b))
    return torch.equal(a.isneginf(), b.isneginf()) and torch.allclose(p, q, rtol=0, atol=1e-6)


@check("P9", law="shift_invariant")
def shift_invariance(subject: ProcessorSubject, draw: Draw) -> None:
    """f(x + c) has the law of f(x)."""
    case = draw(subject.float64_cases())
    c = draw(st.integers(-100, 100))
    out, shifted = case.run(), case.run(logits=case.logits + c)
    expect(same_law(out, shifted), case, f"f(x) = {out.tolist()}, f(x + {c}) = {shifted.tolist()}")


@check("P10", law="permutation_equivariant")
def vocabulary_permutation(subject: ProcessorSubject, draw: Draw) -> None:
    """Relabelling the vocabulary relabels the result, on rows without ties."""
    case = draw(subject.float64_cases(distinct=True))
    vocab_size = case.context.vocab_size
    new = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    ids = tuple(int(new[token]) for token in case.context.eos_token_ids)
    history = attrs.evolve(case.history, tokens=new[case.history.tokens])
    context = attrs.evolve(case.context, eos_token_ids=ids)
    relabelled = case.run(logits=case.logits[:, new.argsort()], history=history, context=context)
    message = f"with token i called {new.tolist()}[i] it gave {relabelled.tolist()}"
    expect(same_law(case.run(), relabelled[:, new]), case, message)


@check("P11", law="keeps_ratios")
def ratio_preservation(subject: ProcessorSubject, draw: Draw) -> None:
    """The survivors keep p_i / p_j: their logits all move by the same amount."""
    case = draw(subject.float64_cases())
    out = case.run()
    alive = out.isfinite() & case.logits.isfinite()
    moved = torch.where(alive, out - case.logits, 0.0)
    spread = moved.masked_fill(~alive, -torch.inf).amax(-1) - moved.masked_fill(~alive, torch.inf).amin(-1)
    expect((spread <= _tolerance(case)).all(), case, f"the result is {out.tolist()}")


@check("P12", law="upper_set")
def upper_set(subject: ProcessorSubject, draw: Draw) -> None:
    """If a token survives, so does every more probable one."""
    case = draw(subject.float64_cases())
    out = case.run()
    dropped = case.logits.masked_fill(~out.isneginf(), -torch.inf).amax(dim=-1)
    kept = case.logits.masked_fill(out.isneginf(), torch.inf).amin(dim=-1)
    expect((dropped <= kept).all(), case, f"the result is {out.tolist()}")


@check("P13", law="keeps_order")
def order_preservation(subject: ProcessorSubject, draw: Draw) -> None:
    """No two survivors swap."""
    case = draw(subject.float64_cases())
    out = case.run()
    alive = out.isfinite() & case.logits.isfinite()
    above = case.logits[:, :, None] > case.logits[:, None, :]
    swapped = out[:, :, None] < out[:, None, :] - _ROUNDING * out[:, None, :].abs()
    pairs = alive[:, :, None] & alive[:, None, :]
    expect(not (above & swapped & pairs).any(), case, f"the result is {out.tolist()}")


@check("P14", law="keeps_argmax")
def argmax_preservation(subject: ProcessorSubject, draw: Draw) -> None:
    """A token of the largest input logit keeps the largest output logit."""
    case = draw(subject.float64_cases())
    out = case.run()
    was_largest = case.logits == case.logits.amax(dim=-1, keepdim=True)
    is_largest = out == out.amax(dim=-1, keepdim=True)
    expect((was_largest & is_largest).any(dim=-1).all(), case, f"the result is {out.tolist()}")


@check("P15", law="idempotent")
def idempotence(subject: ProcessorSubject, draw: Draw) -> None:
    """Applying it twice is applying it once."""
    case = draw(subject.float64_cases())
    once = case.run()
    assume(not once.isneginf().all(dim=-1).any())
    twice = case.run(logits=once)
    expect(same_law(once, twice), case, f"once {once.tolist()}, twice {twice.tolist()}")


@check("P16", skip=lambda subject: None if subject.declares("nested") else "nested names no parameter")
def nested_supports(subject: ProcessorSubject, draw: Draw) -> None:
    """The set of possible tokens grows with the parameter that ``nested`` names (``-name``: shrinks)."""
    name = str(subject.cls.LAWS.nested)
    values, case = subject.values_of(name.lstrip("-")), draw(subject.float64_cases())
    neutral = params_of(subject.cls)[name.lstrip("-")].neutral
    low, high = sorted([draw(values), draw(values)])
    assume(neutral not in (low, high))  # a switch, such as k = 0, stands outside the order
    small, large = (high, low) if name.startswith("-") else (low, high)
    kept, kept_more = (_kept(case, name.lstrip("-"), value) for value in (small, large))
    lost = kept & ~kept_more
    message = (
        f"{name.lstrip('-')}={small!r} keeps (row, token) {lost.nonzero().tolist()} and {large!r} does not"
    )
    expect(not lost.any(), case, message)


@check("P19", law="commutes_with_temperature")
def temperature_law(subject: ProcessorSubject, draw: Draw) -> None:
    """f(x / t) has the law of f(x) / t."""
    case = draw(subject.float64_cases())
    t = draw(st.sampled_from([2.0, 0.5, 8.0, 0.125]))  # powers of two divide without rounding
    before, after = case.run(logits=case.logits / t), case.run() / t
    expect(same_law(before, after), case, f"f(x / {t}) = {before.tolist()}, f(x) / {t} = {after.tolist()}")


@check("P20", skip=lambda subject: None if subject.declares("smallest") else "smallest names no parameter")
def minimality(subject: ProcessorSubject, draw: Draw) -> None:
    """The kept tokens have the probability that ``smallest`` names; without the least one they have not."""
    name = str(subject.cls.LAWS.smallest)
    value, case = draw(subject.values_of(name)), draw(subject.float64_cases())
    processor = build(subject.cls, {name: value})  # all others at their defaults
    assume(not processor.is_neutral)
    case = attrs.evolve(case, processor=processor)
    p = case.logits.softmax(dim=-1)
    kept = p.masked_fill(case.run().isneginf(), 0.0)
    mass, count = kept.sum(dim=-1), (kept > 0).sum(dim=-1)
    least = kept.masked_fill(kept == 0, torch.inf).amin(dim=-1)
    off = 4 * torch.finfo(p.dtype).eps * p.shape[-1]  # of a sum of so many
    message = f"{name}={value!r} keeps tokens of probability {mass.tolist()}, the least has {least.tolist()}"
    expect((mass >= value - off).all(), case, message)
    expect(((mass - least < value + off) | (count <= 1)).all(), case, f"{message}, which it could do without")


def _kept(case: Case, name: str, value: Any) -> Tensor:
    return ~case.with_parameters(**{name: value}).run().isneginf()


def _tolerance(case: Case) -> Tensor:
    """What rounding may do to a difference of logits, for each row."""
    return _ROUNDING * (1 + case.logits.masked_fill(case.logits.isinf(), 0).abs().amax(dim=-1))


CHECKS = (
    shift_invariance,
    vocabulary_permutation,
    ratio_preservation,
    upper_set,
    order_preservation,
    argmax_preservation,
    idempotence,
    nested_supports,
    temperature_law,
    minimality,
)

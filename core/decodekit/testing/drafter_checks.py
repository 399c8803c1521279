"""The conformance kit for drafters: does a class keep the contract and the laws that it declares?"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from decodekit.distribution import Distribution
from decodekit.drafter import Draft, Drafter
from decodekit.randomness import Purpose
from decodekit.testing.check import (
    BrokenPromiseError,
    Check,
    Draw,
    assertions,
    check,
    class_and_instance,
    run_checks,
)
from decodekit.testing.drafter_subject import DrafterSubject, Idle, Look, Verify
from decodekit.testing.report import Report, Result
from decodekit.testing.strategy_case import Case, expect, expect_same
from decodekit.testing.strategy_toys import InterruptionError

if TYPE_CHECKING:
    from decodekit.batch import Batch

__all__ = ["DRAFTER_CHECKS", "check_drafter", "drafter_checks"]

_ROWS = 500
_FAR = 6.0
"""Standard deviations that honest draws don't reach."""


def _watched(subject: DrafterSubject, case: Case, look: Look, **changes: Any) -> list[Any]:
    """The finished rows of a call in which every draft is looked at."""
    strategy: Any = case.strategy  # a `Verify`
    watched = attrs.evolve(case, strategy=attrs.evolve(strategy, look=look, **changes))
    return watched.run(**_tokenizer(subject))


def _tokenizer(subject: DrafterSubject) -> dict[str, Any]:
    return {} if subject.tokenizer is None else {"tokenizer": subject.tokenizer}


def _without_q(subject: DrafterSubject) -> str | None:
    """Why a check of q does not apply to a drafter that reports none."""
    return None if subject.declares("reports_q") else "it draws nothing (reports_q)"


@check("D1", most_examples=15)
def contract(subject: DrafterSubject, draw: Draw) -> None:
    """A draft has a list for each row, no longer than asked, of ids of the vocabulary, and a q that fits."""
    case = draw(subject.cases())

    def look(batch: "Batch", lengths: Sequence[int], draft: Draft) -> None:
        expect(isinstance(draft, Draft), case, f"draft returned {draft!r}, and not a decodekit.Draft")
        expect(len(draft.tokens) == len(lengths), case, f"{len(draft.tokens)} lists for {len(lengths)} rows")
        for block, most in zip(draft.tokens, lengths, strict=True):
            expect(len(block) <= most, case, f"{block} is longer than the {most} tokens that were asked for")
            fine = all(type(token) is int and 0 <= token < case.model.vocab_size for token in block)
            expect(fine, case, f"{block} holds what is no id of the {case.model.vocab_size} tokens")
        expect_q(subject, case, draft)

    _watched(subject, case, look)


def expect_q(subject: DrafterSubject, case: Case, draft: Draft) -> None:
    """Raise `BrokenPromiseError` when a draft's q is missing, has another shape or forbids its tokens."""
    longest = max(map(len, draft.tokens), default=0)
    if not subject.declares("reports_q"):
        expect(not draft.q, case, "it gives q: declare reports_q in LAWS, or leave q out")
        return
    expect(len(draft.q) >= longest, case, f"{len(draft.q)} distributions for drafts of {longest} tokens")
    shape = (len(draft.tokens), case.model.vocab_size)
    for column, q in enumerate(draft.q[:longest]):
        expect(tuple(q.scores.shape) == shape, case, f"q has shape {list(q.scores.shape)}, not {list(shape)}")
        for row, block in enumerate(draft.tokens):
            if column < len(block):
                chance = float(q.probs[row, block[column]])
                expect(
                    chance > 0, case, f"q gives the drafted token {block[column]} the probability {chance}"
                )


@check("D2", most_examples=20)
def transparency(subject: DrafterSubject, draw: Draw) -> None:
    """Under the coupled rule tokens are those of plain sampling, also where rows fork, leave and end."""
    case = draw(subject.cases())
    rows = _watched(subject, case, lambda *_: None)
    expect_same(case, rows, case.run(strategy=Verify(Idle())), "by plain sampling")


@check("D3", most_examples=10)
def purity(subject: DrafterSubject, draw: Draw) -> None:
    """Asked again for the same rows it drafts the same, and neither rows nor the global noise change."""
    case = draw(subject.cases())

    def look(batch: "Batch", lengths: Sequence[int], draft: Draft) -> None:
        texts = [row.since(0) for row in batch.rows]
        noise = torch.random.get_rng_state()
        strategy = case.strategy
        assert isinstance(strategy, Verify)  # of the subject's own making
        again = bound["drafter"].draft(batch, lengths, strategy.pick(batch))
        same = again.tokens == draft.tokens
        expect(same, case, f"it drafted {draft.tokens}, and, asked again, {again.tokens}")
        expect(texts == [row.since(0) for row in batch.rows], case, "the rows have other tokens now")
        expect(torch.equal(noise, torch.random.get_rng_state()), case, "it drew from torch's generator")
        if not subject.declares("reports_q"):
            other = bound["drafter"].draft(batch, lengths, Distribution.argmax)
            message = f"it drafted {draft.tokens}, and {other.tokens} with other draws: declare reports_q"
            expect(other.tokens == draft.tokens, case, message)

    bound: dict[str, Drafter] = {}
    _watched(subject, _remembering(case, bound), look)


def _remembering(case: Case, bound: dict[str, Drafter]) -> Case:
    """The same case; the drafter as it was bound to the call is put into ``bound``."""

    class Remembering(Verify):
        __slots__ = ()

        def step(self, batch: "Batch") -> None:
            bound["drafter"] = self.drafter
            super().step(batch)

    strategy = case.strategy
    assert isinstance(strategy, Verify)  # of the subject's own making
    return attrs.evolve(case, strategy=Remembering(strategy.drafter, strategy.length))


@check("D4", skip=_without_q, most_examples=4, shrinks=False)
def honest_q(subject: DrafterSubject, draw: Draw) -> None:
    """At every place of a draft tokens are drawn from the distribution that is reported (6 sigma)."""
    case = attrs.evolve(draw(subject.cases(copies=_ROWS, ends=False)), max_new_tokens=4)
    case = attrs.evolve(case, prompts=case.prompts[:1], seeds=case.seeds[:1])
    shape = (case.max_new_tokens, case.model.vocab_size)
    seen, expected, variance = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))

    def look(batch: "Batch", lengths: Sequence[int], draft: Draft) -> None:
        for column, q in enumerate(draft.q):
            rows = [row for row, block in enumerate(draft.tokens) if column < len(block)]
            if rows:
                law = q.probs[rows].double()
                tokens = torch.tensor([draft.tokens[row][column] for row in rows])
                seen[column] += tokens.bincount(minlength=shape[1])
                expected[column] += law.sum(0)
                variance[column] += (law * (1 - law)).sum(0)

    _watched(subject, case, look, purpose=Purpose.DRAFT)
    far = (seen - expected).abs() > _FAR * variance.sqrt() + 3
    if far.any():
        column, token = far.nonzero()[0].tolist()
        message = (
            f"at place {column} of a draft token {token} came {int(seen[column, token])} times, and the "
            f"reported distributions expect {float(expected[column, token]):.1f} "
            f"+- {float(variance[column, token].sqrt()):.1f}"
        )
        raise BrokenPromiseError(f"{message}\n{case}")  # noqa: EM102  # made of both, and only here


@check("D5", most_examples=6)
def the_model_is_as_it_was(subject: DrafterSubject, draw: Draw) -> None:
    """Weights, configuration, mode and forward of target and draft models survive, also an exception."""
    case = draw(subject.cases())
    strategy = case.strategy
    assert isinstance(strategy, Verify)  # of the subject's own making
    drafter = strategy.drafter
    own = [*drafter.models.values(), *drafter.foreign_models.values()]
    models = [case.model.module, *(model for model in own if model is not None)]
    before = [_picture(model) for model in models]

    def interrupt(batch: "Batch", lengths: Sequence[int], draft: Draft) -> None:
        if any(row.tokens for row in batch.rows):
            raise InterruptionError

    for look in (lambda *_: None, interrupt):
        with contextlib.suppress(InterruptionError):
            _watched(subject, case, look)
        for model, picture in zip(models, before, strict=True):
            expect(_same(picture, _picture(model)), case, f"{type(model).__name__} is not as it was")


def _picture(model: Any) -> tuple[Any, ...]:
    modules = [(name, id(module), module.training) for name, module in model.named_modules()]
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return modules, model.config.to_dict(), weights


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    weights: dict[str, Tensor] = one[2]
    equal = weights.keys() == other[2].keys() and all(torch.equal(weights[k], other[2][k]) for k in weights)
    return bool(one[:2] == other[:2] and equal)


DRAFTER_CHECKS: tuple[Check[DrafterSubject], ...] = (
    contract,
    transparency,
    purity,
    honest_q,
    the_model_is_as_it_was,
)
"""Every check, in the order of the numbers."""


def check_drafter(
    drafter: type[Drafter] | Drafter,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    target: Any = None,
    tokenizer: Any = None,
    profile: str | None = None,
) -> Report:
    """Check a drafter against its contract and its declared laws.

    It drafts for small models with known answers, under a strategy that verifies by the coupled rule.

    Args:
        drafter: a class, or an instance when only its own parameters are of interest.
        examples: parameter values to try, as dictionaries; left out, they are drawn from the
            declared ranges and choices.
        target: the model to draft for, if not any will do: a small one, best in float64.
        tokenizer: the target's, for a drafter that needs it.
        profile: ``fast``, ``default`` or ``thorough``; by default DECODEKIT_TEST_PROFILE.

    Returns:
        What passed, what was skipped and why, and which undeclared laws seem to hold.

    Raises:
        ConformanceError: names each broken property, its law and the smallest counter-example.
        ParameterError: ``drafter`` is none, there is no such profile, or a parameter that needs ``examples``
            got none.
    """
    return run_checks(DRAFTER_CHECKS, _subject(drafter, examples, target, tokenizer), profile)


def drafter_checks(
    drafter: type[Drafter] | Drafter,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    target: Any = None,
    tokenizer: Any = None,
    profile: str | None = None,
) -> list[tuple[str, Callable[[], Result]]]:
    """The checks that apply, as ``(id, function)`` pairs for ``pytest.mark.parametrize``.

    Arguments and errors are those of `check_drafter`; each function raises on its own.
    """
    return assertions(DRAFTER_CHECKS, _subject(drafter, examples, target, tokenizer), profile)


def _subject(
    drafter: type[Drafter] | Drafter,
    examples: Sequence[Mapping[str, Any]],
    target: Any,
    tokenizer: Any,
) -> DrafterSubject:
    return DrafterSubject(*class_and_instance("drafters", drafter), examples, target, tokenizer)

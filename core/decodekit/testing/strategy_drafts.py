"""S28, S30, S31: how a strategy that takes a drafter judges drafts, right and wrong ones."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import torch
from hypothesis import strategies as st

from decodekit.drafter import Draft, Drafter, DrafterLaws, Pick
from decodekit.errors import DecodekitError
from decodekit.params import param
from decodekit.processor import CallContext
from decodekit.testing.check import Draw, check
from decodekit.testing.strategy_case import Case, around, expect
from decodekit.testing.strategy_models import EVEN, ONE_LAW
from decodekit.testing.strategy_reference import full_logits, scores
from decodekit.testing.strategy_subject import StrategySubject, with_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from decodekit.batch import Batch

__all__ = ["CHECKS", "Fixed", "Mirror", "Stubborn"]

_HOLES = ("Markov with impossible tokens", "Markov of order 1")
_ROWS = 300
_FAR = 6.0
"""Standard deviations that right counts don't reach."""


@attrs.frozen
class Mirror(Drafter):
    """Drafts from the target itself, so that q is p."""

    NAME: ClassVar[str] = "kit_mirror"
    LAWS: ClassVar[DrafterLaws] = DrafterLaws(reports_q=True)
    _model: Any = attrs.field(default=None, repr=False, eq=False)

    def bind(self, model: "PreTrainedModel", context: CallContext) -> "Mirror":
        """Take the target."""
        return attrs.evolve(self, model=model)

    @property
    def models(self) -> "dict[str, PreTrainedModel]":
        """The target once more."""
        return {} if self._model is None else {"kit_mirror": self._model}

    def draft(self, batch: "Batch", lengths: Sequence[int], pick: Pick) -> Draft:
        """As the target goes on."""
        drafts: list[list[int]] = [[] for _ in lengths]
        q: list[Any] = []
        for place in range(max(lengths, default=0)):
            logits = batch.logits(drafts, session="kit_mirror", last=True)
            q.append(batch.dist(logits, drafts, after=q[-1] if q else None))
            _lengthen(drafts, lengths, place, pick(q[-1]).tolist())
        return Draft(drafts, q)


@attrs.frozen
class Fixed(Drafter):
    """Drafts from one law, whatever came before.

    Attributes:
        seed: names the law: the softmax of normal logits.
        parity: 0 or 1 for a law of the even or the odd tokens only; 2 for one of all.
    """

    NAME: ClassVar[str] = "kit_fixed"
    LAWS: ClassVar[DrafterLaws] = DrafterLaws(reports_q=True)

    seed: int = param(0, range="[0, inf)", help="Names the law.")
    parity: int = param(2, range="[0, 2]", help="Which tokens it drafts.")
    _size: int = attrs.field(default=0, repr=False, eq=False)

    def bind(self, model: "PreTrainedModel", context: CallContext) -> "Fixed":
        """Learn the size of the vocabulary."""
        return attrs.evolve(self, size=context.vocab_size)

    def logits(self, vocab_size: int) -> torch.Tensor:
        """The logarithms of its law, float64 [V]."""
        random = torch.Generator().manual_seed(self.seed)
        logits = torch.randn(vocab_size, generator=random, dtype=torch.float64)
        others = torch.arange(vocab_size) % 2 != self.parity
        return logits if self.parity == 2 else logits.masked_fill(others, -torch.inf)

    def draft(self, batch: "Batch", lengths: Sequence[int], pick: Pick) -> Draft:
        """Draws of the law."""
        drafts: list[list[int]] = [[] for _ in lengths]
        q: list[Any] = []
        logits = self.logits(self._size).expand(len(lengths), -1)
        for place in range(max(lengths, default=0)):
            q.append(batch.dist(logits, drafts, after=q[-1] if q else None))
            _lengthen(drafts, lengths, place, pick(q[-1]).tolist())
        return Draft(drafts, q)


@attrs.frozen
class Stubborn(Drafter):
    """Drafts one token again and again, and reports nothing."""

    NAME: ClassVar[str] = "kit_stubborn"
    token: int = param(0, range="[0, inf)", help="The token.")
    _size: int = attrs.field(default=1, repr=False, eq=False)

    def bind(self, model: "PreTrainedModel", context: CallContext) -> "Stubborn":
        """Learn the size of the vocabulary."""
        return attrs.evolve(self, size=context.vocab_size)

    def draft(self, batch: "Batch", lengths: Sequence[int], pick: Pick) -> Draft:
        """The token."""
        return Draft([[self.token % self._size] * most for most in lengths])


def _lengthen(drafts: list[list[int]], lengths: Sequence[int], place: int, tokens: list[int]) -> None:
    for draft, most, token in zip(drafts, lengths, tokens, strict=True):
        if place < most:
            draft.append(token)


def _takes_no_drafter(subject: StrategySubject) -> str | None:
    """Why a check of drafts does not apply."""
    name = subject.laws.verifies
    if name is None:
        return "verifies names no parameter"
    if subject.fixed is not None:
        try:
            with_parameters(subject.fixed, **{name: Fixed()})
        except DecodekitError as error:
            return f"this instance takes no other drafter ({error})"
    return None


def _without_acceptance(subject: StrategySubject) -> str | None:
    if subject.laws.acceptance is None:
        return "acceptance names no rule"
    return _takes_no_drafter(subject) or (None if subject.samples else "it does not sample (SAMPLES)")


def _lossy(subject: StrategySubject) -> str | None:
    return _takes_no_drafter(subject) or (
        None if subject.declares("lossless") else "lossless is not declared"
    )


def _drafting(subject: StrategySubject, case: Case, drafter: Drafter) -> Case:
    """The case with the drafter, and without an end, so that no draft is cut short."""
    strategy = with_parameters(case.strategy, **{str(subject.laws.verifies): drafter})
    return attrs.evolve(case, strategy=strategy, eos=())


@check("S28", skip=_without_acceptance, share=0.15, shrinks=False)
def acceptance_formula(subject: StrategySubject, draw: Draw) -> None:
    """By the rule of ``acceptance`` n drafted tokens have a + a^2 + ... + a^n accepted ones (6 sigma)."""
    case = draw(subject.cases(ONE_LAW))
    drafter = Fixed(draw(st.integers(0, 99)))
    case = attrs.evolve(case.take([0]), processors=(), copies=_ROWS, max_new_tokens=8)
    case = _drafting(subject, case, drafter)
    p = full_logits(case.model.module, [0])[-1].softmax(-1)
    q = drafter.logits(case.model.vocab_size).softmax(-1)
    if subject.laws.acceptance == "rejection":
        a = float(torch.minimum(p, q).sum())
    else:  # Daliri et al. (2024), arXiv:2408.07978: two races of exponentials with the same noise
        worst = torch.maximum(p[None] / p[:, None], q[None] / q[:, None])  # [i, j]: p_j / p_i or q_j / q_i
        a = float((1 / worst.sum(-1)).sum())
    drafts = _judged(case)
    right, wanted, variance = sum(kept for _, kept in drafts), 0.0, 0.0
    for n, count in _counted(drafts).items():
        mean = sum(a**j for j in range(1, n + 1))
        wanted += count * mean
        variance += count * (sum((2 * j - 1) * a**j for j in range(1, n + 1)) - mean**2)
    passes = max(len(drafts), 1)
    message = (
        f"a token is accepted with probability {a:.4f}, so a pass should give {1 + wanted / passes:.3f} "
        f"tokens; it gave {1 + right / passes:.3f} in {len(drafts)} drafts"
    )
    expect(abs(right - wanted) <= _FAR * variance**0.5 + 1, case, message)


def _judged(case: Case) -> list[tuple[int, int]]:
    """For each draft of a call how many tokens it had, and how many were accepted."""
    found: list[tuple[int, int]] = []
    before: dict[int, tuple[int, int]] = {}

    def note(batch: "Batch") -> None:
        before.clear()
        before.update({id(row): (row.drafted, row.accepted) for row in batch.rows})

    def compare(batch: "Batch") -> None:
        for row in batch.rows:
            drafted, accepted = before.get(id(row), (0, 0))
            if row.drafted > drafted:
                found.append((row.drafted - drafted, row.accepted - accepted))

    attrs.evolve(case, strategy=around(case.strategy, before=note, after=compare)).run()
    return found


def _counted(drafts: list[tuple[int, int]]) -> dict[int, int]:
    return {n: len([*group]) for n, group in itertools.groupby(sorted(n for n, _ in drafts))}


@check("S30", skip=_takes_no_drafter, share=0.4)
def impossible_drafts(subject: StrategySubject, draw: Draw) -> None:
    """Of what the parameter ``verifies`` drafts nothing of probability 0 is accepted, even by a draw of 0."""
    case = draw(subject.cases(_HOLES, least_processors=1))
    number = draw(st.integers(0, 99))
    drafter = Fixed(number) if draw(st.booleans()) else Stubborn(number)
    case = _drafting(subject, case, drafter)

    def zero(batch: "Batch") -> None:
        vars(batch)["uniform"] = lambda *_, **__: torch.zeros(len(batch.rows), dtype=torch.float64)

    for forced in (False, True):
        strategy = around(case.strategy, before=zero) if forced else case.strategy
        for row in attrs.evolve(case, strategy=strategy).run():
            found = scores(case, case.prompts[row.prompt], row.tokens)[:-1]
            for drawn, score in zip(row.tokens, found, strict=True):
                where = " where the uniform number was 0" if forced else ""
                message = f"{row.tokens} holds {drawn}, which had probability 0{where}"
                expect(float(score[drawn]) > -torch.inf, case, message)


@check("S31", skip=_lossy, share=0.3)
def draft_of_the_target(subject: StrategySubject, draw: Draw) -> None:
    """Where q is p every drafted token is accepted, and all numbers are finite."""
    case = _drafting(subject, draw(subject.cases()), Mirror())
    for row in case.run():
        message = f"{row.accepted} of {row.drafted} tokens that were drawn from the target were accepted"
        expect(row.accepted == row.drafted, case, message)
        finite = all(abs(value) < torch.inf for value in row.logprobs)
        expect(finite, case, f"the log-probabilities are {row.logprobs}")


@check("S31", skip=_lossy, share=0.3, shrinks=False)
def draft_of_other_tokens(subject: StrategySubject, draw: Draw) -> None:
    """Where p and q share no token none is accepted, and what comes is drawn from p (6 sigma)."""
    case = draw(subject.cases(EVEN))
    samples = case.strategy.samples
    case = attrs.evolve(case.take([0]), processors=(), max_new_tokens=3, copies=_ROWS if samples else 1)
    case = _drafting(subject, case, Fixed(draw(st.integers(0, 99)), 1))
    rows = case.run()
    accepted = sum(row.accepted for row in rows)
    expect(accepted == 0, case, f"{accepted} drafted tokens that the target forbids were accepted")
    if not samples:
        return
    p = scores(case, case.prompts[0], [])[0].softmax(-1)
    tokens = torch.tensor([token for row in rows for token in row.tokens])
    seen = tokens.bincount(minlength=len(p))
    spread = (len(tokens) * p * (1 - p)).sqrt()
    message = f"the tokens came {seen.tolist()} times, and not {(len(tokens) * p).tolist()}"
    expect(((seen - len(tokens) * p).abs() <= _FAR * spread + 1).all(), case, message)


CHECKS = (acceptance_formula, impossible_drafts, draft_of_the_target, draft_of_other_tokens)

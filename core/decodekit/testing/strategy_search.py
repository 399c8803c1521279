"""S23 to S25: what a strategy becomes at its neutral values, and what a search finds."""

import itertools
from typing import Any

import attrs
import torch
from hypothesis import strategies as st

from decodekit.params import params_of
from decodekit.strategy import Strategy
from decodekit.testing.check import Draw, check
from decodekit.testing.drafter_subject import Idle, Verify
from decodekit.testing.strategy_case import Case, expect, expect_same
from decodekit.testing.strategy_reference import greedy_tokens, sequence_law
from decodekit.testing.strategy_subject import StrategySubject, with_parameters

__all__ = ["CHECKS"]

_PROMPTS = 300
"""Draws of a few sequences each."""
_FAR = 6.5
"""Standard deviations that right frequencies don't reach."""


def _neutral_values(cls: type[Strategy]) -> dict[str, Any]:
    """The parameters that have a neutral value, and no draws where these are a matter of choice."""
    infos = params_of(cls)
    values = {name: info.neutral for name, info in infos.items() if info.neutral is not attrs.NOTHING}
    return {**values, "do_sample": False} if values and "do_sample" in infos else values


def _without_neutral(subject: StrategySubject) -> str | None:
    return None if _neutral_values(subject.cls) else "no parameter declares a neutral value"


def _without_width(subject: StrategySubject) -> str | None:
    return None if subject.declares("width") else "width names no parameter"


@check("S23", skip=_without_neutral, share=0.5)
def neutral_parameters(subject: StrategySubject, draw: Draw) -> None:
    """At the neutral values of its parameters its tokens are those of greedy decoding, or of sampling."""
    case = draw(subject.cases())
    case = attrs.evolve(case, copies=1)
    strategy = with_parameters(case.strategy, **_neutral_values(subject.cls))
    case = attrs.evolve(case, strategy=strategy)
    rows = case.run()
    if strategy.samples:
        expect_same(case, rows, case.run(strategy=Verify(Idle())), "by plain sampling")
        return
    for row in rows:
        wanted = greedy_tokens(case, case.prompts[row.prompt])
        expect(row.tokens == wanted, case, f"{_name(row)} is {row.tokens}, greedy decoding gives {wanted}")


@check("S24", skip=_without_width, share=0.3)
def exhaustive_search(subject: StrategySubject, draw: Draw) -> None:
    """With ``width`` for every sequence it finds the most probable ones, each with its log-probability."""
    case = _enumerable(draw(subject.cases(_ENUMERABLE, largest=3)), 3)
    case = attrs.evolve(case, processors=())
    law = sequence_law(case, case.prompts[0])
    width = str(subject.cls.LAWS.width)
    values = {**_neutral_values(subject.cls), width: len(law)}
    copies = draw(st.integers(1, min(4, len(law))))
    case = attrs.evolve(case, strategy=with_parameters(case.strategy, **values), copies=copies)
    rows = case.run()
    _expect_ranking(case, rows)
    best = torch.tensor(sorted(law.values(), reverse=True)[:copies], dtype=torch.float64).log()
    found = torch.tensor([law.get(tuple(row.tokens), 0.0) for row in rows], dtype=torch.float64).log()
    scores = torch.tensor([row.score for row in rows], dtype=torch.float64)
    told = [(row.tokens, row.score) for row in rows]
    message = (
        f"of {len(law)} sequences the best have the log-probabilities {best.tolist()}, and found are {told}"
    )
    expect(torch.allclose(found, best, 0, 1e-9), case, message)
    expect(torch.allclose(scores, best, 0, 1e-6), case, message)


@check(
    "S24", skip=lambda subject: None if subject.cls.SEARCHES else "it does not search (SEARCHES)", share=0.5
)
def ranking(subject: StrategySubject, draw: Draw) -> None:
    """The rows of a prompt are different sequences, best score first."""
    case = draw(subject.cases())
    several = min(3, case.strategy.rows_per_prompt(3))
    case = attrs.evolve(case, copies=draw(st.integers(1, several)))
    _expect_ranking(case, case.run())


def _expect_ranking(case: Case, rows: list[Any]) -> None:
    for _, group in itertools.groupby(rows, key=lambda row: row.prompt):
        own = [row for row in group if row.finish_reason != "exhausted"]
        told = [(row.tokens, row.score) for row in own]
        expect(len({tuple(row.tokens) for row in own}) == len(own), case, f"a sequence came twice: {told}")
        scores = [row.score for row in own]
        expect(scores == sorted(scores, reverse=True), case, f"they are not ranked by their scores: {told}")


def _with_replacement(subject: StrategySubject) -> str | None:
    return None if subject.declares("without_replacement") else "without_replacement is not declared"


@check("S25", law="without_replacement", skip=_with_replacement, share=0.1, shrinks=False)
def draws_without_replacement(subject: StrategySubject, draw: Draw) -> None:
    """The rows of a prompt differ, and each sequence is among them as often as the law says (6.5 sigma)."""
    case = _enumerable(draw(subject.cases(_ENUMERABLE, largest=3)), 2)
    law = {tokens: p for tokens, p in sequence_law(case, case.prompts[0]).items() if p > 0}
    copies = min(draw(st.integers(2, 3)), len(law), case.strategy.rows_per_prompt(3))
    many = attrs.evolve(case, prompts=case.prompts * _PROMPTS, seeds=list(range(_PROMPTS)), copies=copies)
    counts = dict.fromkeys(law, 0)
    for _, group in itertools.groupby(many.run(), key=lambda row: row.prompt):
        sequences = [tuple(row.tokens) for row in group if row.finish_reason != "exhausted"]
        fine = len({*sequences}) == len(sequences) == copies and {*sequences} <= {*law}
        expect(fine, case, f"{copies} draws without replacement were {sequences}")
        for tokens in sequences:
            counts[tokens] += 1
    for tokens, p in _inclusion(law, copies).items():
        spread = (_PROMPTS * p * (1 - p)) ** 0.5
        message = (
            f"{list(tokens)} was among {copies} draws {counts[tokens]} times of {_PROMPTS}, "
            f"and not {_PROMPTS * p:.0f}"
        )
        expect(abs(counts[tokens] - _PROMPTS * p) <= _FAR * spread + 1, case, message)


def _inclusion(law: dict[tuple[int, ...], float], draws: int) -> dict[tuple[int, ...], float]:
    """How probable it is that each sequence is among ``draws`` without replacement."""
    found = dict.fromkeys(law, 0.0)
    for order in itertools.permutations(law, draws):
        left, chance = 1.0, 1.0
        for tokens in order:
            chance *= law[tokens] / left if left > 1e-12 else 0.0
            left -= law[tokens]
        for tokens in order:
            found[tokens] += chance
    return found


_ENUMERABLE = ("Markov of order 1", "Markov with impossible tokens")


def _enumerable(case: Case, longest: int) -> Case:
    """One prompt, and so few sequences that all can be enumerated."""
    return attrs.evolve(case.take([0]), max_new_tokens=min(case.max_new_tokens, longest), copies=1)


def _name(row: Any) -> str:
    return f"row {row.lane} of prompt {row.prompt}"


CHECKS = (neutral_parameters, exhaustive_search, ranking, draws_without_replacement)

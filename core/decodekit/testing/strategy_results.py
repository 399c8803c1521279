"""S1 to S5, S12 to S14, S36: which tokens come out, with which probabilities, and where they end."""

import itertools
from typing import TYPE_CHECKING, Any

import attrs
import torch
from hypothesis import strategies as st
from torch import Tensor

from decodekit.blocks import as_blocks
from decodekit.chain import Chain
from decodekit.distribution import Distribution
from decodekit.history import History
from decodekit.processor import CallContext
from decodekit.row import Row
from decodekit.testing.check import Draw, check
from decodekit.testing.strategy_case import Case, around, expect
from decodekit.testing.strategy_models import EXACT, HALF
from decodekit.testing.strategy_reference import greedy_tokens, scores, sequence_law
from decodekit.testing.strategy_subject import StrategySubject, without_draws
from decodekit.testing.strategy_toys import Bytes
from decodekit.wrapped import WrappedProcessor

if TYPE_CHECKING:
    from decodekit.batch import Batch

__all__ = ["CHECKS"]

_ROWS = 2_000
_IMPROBABLE = 1e-6
_ENUMERABLE = ("Markov of order 1", "Markov with impossible tokens", "Markov of equal logits")
_STOPS = ("a", "ab", "ba", "aab", "b a", "é", "aé")


def _not_again(input_ids: Tensor, logits: Tensor) -> Tensor:
    """A processor in transformers' form: the last token gets much less probable."""
    return logits.scatter_add(1, input_ids[:, -1:], torch.full_like(logits[:, :1], -3.0))


@check("S1", law="greedy_limit", share=0.75)
def greedy_limit(subject: StrategySubject, draw: Draw) -> None:
    """At temperature 0 the tokens are those of greedy decoding, ties going to the lowest id."""
    processors = (WrappedProcessor(_not_again),)
    case = attrs.evolve(draw(subject.cases()), processors=processors)
    cold = {"temperature": 0.0, "top_k": 0} if case.strategy.samples else {}
    for row in case.run(processors=None, logits_processor=[_not_again], **cold):
        wanted = greedy_tokens(case, case.prompts[row.prompt])
        expect(row.tokens == wanted, case, f"{_name(row)} is {row.tokens}, greedy decoding gives {wanted}")


@check("S2")
def support(subject: StrategySubject, draw: Draw) -> None:
    """Every token is possible under the processed distribution of the model."""
    case = draw(subject.cases())
    for row in case.run():
        for step, (token, found) in enumerate(zip(row.tokens, _teacher(case, row), strict=True)):
            expect(
                found[token] > -torch.inf,
                case,
                f"{_name(row)} is {row.tokens}, and token {token} at step {step} has probability 0",
            )


@check("S3")
def reported_log_probabilities(subject: StrategySubject, draw: Draw) -> None:
    """The log-probability of each token is that under the processed distribution, within 1e-9 in float64."""
    case = draw(subject.cases())
    for row in case.run():
        teacher = _teacher(case, row)
        wanted = [
            float(found.log_softmax(-1)[token]) for token, found in zip(row.tokens, teacher, strict=True)
        ]
        same = len(row.logprobs) == len(wanted) and torch.allclose(
            torch.tensor(row.logprobs, dtype=torch.float64),
            torch.tensor(wanted, dtype=torch.float64),
            0,
            case.model.tolerance,
        )
        expect(same, case, f"{_name(row)} is {row.tokens} with {row.logprobs}, teacher forcing says {wanted}")


@check("S4", law="lossless", skip=without_draws, share=0.15, shrinks=False)
def sequence_law_of_the_model(subject: StrategySubject, draw: Draw) -> None:
    """Sequences have the probabilities of plain sampling, without a chain (chi-square, p > 1e-6)."""
    _expect_law(attrs.evolve(_enumerable(draw(subject.cases(_ENUMERABLE, largest=3))), processors=()))


@check("S5", law="lossless", skip=without_draws, share=0.2, shrinks=False)
def sequence_law_with_processors(subject: StrategySubject, draw: Draw) -> None:
    """Sequences have the probabilities of plain sampling under every chain (chi-square, p > 1e-6)."""
    _expect_law(_enumerable(draw(subject.cases(_ENUMERABLE, largest=3, least_processors=1))))


def _enumerable(case: Case) -> Case:
    """One prompt, and so few sequences that all can be enumerated."""
    return attrs.evolve(case.take([0]), max_new_tokens=4, copies=_ROWS)


def _expect_law(case: Case) -> None:
    law = sequence_law(case, case.prompts[0])
    counts = dict.fromkeys(law, 0)
    for row in case.run():
        expect(tuple(row.tokens) in counts, case, f"{_name(row)} is {row.tokens}, which has probability 0")
        counts[tuple(row.tokens)] += 1
    p = _chi_square(list(counts.values()), [_ROWS * probability for probability in law.values()])
    worst = max(law, key=lambda tokens: abs(counts[tokens] - _ROWS * law[tokens]))
    message = (
        f"{_ROWS} sequences fit the model's law with p = {p:.1e}; "
        f"{list(worst)} came {counts[worst]} times and {_ROWS * law[worst]:.0f} were expected"
    )
    expect(p > _IMPROBABLE, case, message)


def _chi_square(counts: list[int], expected: list[float]) -> float:
    """The p-value of Pearson's test; cells that expect fewer than five are one cell."""
    order = sorted(range(len(counts)), key=expected.__getitem__)
    cells: list[tuple[float, float]] = []
    seen, wanted = 0.0, 0.0
    for place in order:
        seen, wanted = seen + counts[place], wanted + expected[place]
        if wanted >= 5:
            cells.append((seen, wanted))
            seen = wanted = 0.0
    statistic = sum((count - mean) ** 2 / mean for count, mean in cells)
    freedom = torch.tensor((len(cells) - 1) / 2, dtype=torch.float64)
    if len(cells) < 2:
        return 1.0
    return float(torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64)))


@check("S12")
def end_of_sequence(subject: StrategySubject, draw: Draw) -> None:
    """A row ends with its first EOS token of any id, and says so; after it there is only padding."""
    case = draw(subject.cases(EXACT))
    call = case.finished()
    sequences = case.result(call).sequences[:, call.request.input_ids.shape[1] :].tolist()
    for row, sequence in zip(call.rows, sequences, strict=True):
        early = [token for token in row.tokens[:-1] if token in case.eos]
        expect(not early, case, f"{_name(row)} is {row.tokens} and goes on after EOS")
        ended = any(token in case.eos for token in row.tokens[-1:])
        message = f"{_name(row)} is {row.tokens} and gives {row.finish_reason!r} as the reason"
        expect((row.finish_reason == "eos") == ended, case, message)
        rest = sequence[len(row.tokens) :]
        message = f"{_name(row)} is {row.tokens}, in the result {sequence}"
        expect(sequence[: len(row.tokens)] == row.tokens and {*rest} <= {case.pad}, case, message)


@check("S13")
def length(subject: StrategySubject, draw: Draw) -> None:
    """A row has max_new_tokens tokens, or fewer and EOS at its end; a search may run out of sequences."""
    case = draw(subject.cases(EXACT))
    for row in case.run():
        message = f"{_name(row)} has {len(row.tokens)} tokens and ended for {row.finish_reason!r}"
        expect(len(row.tokens) <= case.max_new_tokens, case, message)
        reasons = {"length"} if len(row.tokens) == case.max_new_tokens else set()
        reasons |= {"eos"} if case.eos else set()
        reasons |= {"exhausted"} if case.strategy.SEARCHES else set()
        expect(row.finish_reason in reasons, case, message)


@check("S14")
def stop_strings(subject: StrategySubject, draw: Draw) -> None:
    """A row ends with the token that completes a stop string, across tokens, steps and the prompt's end."""
    case = draw(subject.cases(EXACT))
    stops = draw(st.lists(st.sampled_from(_STOPS), min_size=1, max_size=2, unique=True))
    for row in case.run(stop_strings=stops, tokenizer=Bytes()):
        prompt = case.prompts[row.prompt]
        texts = [Bytes().decode(prompt + row.tokens[:end]) for end in range(len(row.tokens) + 1)]
        ends = [_completes(stops, before, after) for before, after in itertools.pairwise(texts)]
        message = (
            f"{_name(row)} says {texts[-1]!r} after {texts[0]!r} and ended for {row.finish_reason!r}; "
            f"the stop strings are {stops}"
        )
        expect(not any(ends[:-1]), case, message)
        reasons = ("stop_string", "eos") if any(ends[-1:]) else ("eos", "length", "exhausted")
        expect(row.finish_reason in reasons, case, message)


def _completes(stops: list[str], before: str, after: str) -> bool:
    """Whether a stop string overlaps what has come after ``before``; incomplete characters don't count."""
    before, after = before.rstrip("�"), after.rstrip("�")
    return any(after.find(stop, max(len(before) - len(stop) + 1, 0)) >= 0 for stop in stops)


@check("S36", share=0.3)
def half_precision_model(subject: StrategySubject, draw: Draw) -> None:
    """From a model in bfloat16 each token is possible under the chain in float32 on its logits."""
    case = draw(subject.cases(HALF, least_processors=1))
    if case.strategy.samples:  # a draw in half precision goes wrong now and then only
        case = attrs.evolve(case, copies=min(8, case.strategy.rows_per_prompt(8)))
    chain = Chain(case.processors).bind(CallContext(vocab_size=case.model.vocab_size, eos_token_ids=case.eos))

    def look(row: Row, block: list[int], place: int, dist: Distribution) -> None:
        states = row.states
        for column, token in enumerate(block):
            logits, _ = dist.column(place, column)
            wide = logits.dtype in (torch.float32, torch.float64)
            expect(wide, case, f"{_name(row)} was chosen from logits in {logits.dtype}")
            history = History.of([row.prompt_tokens], [row.tokens + block[:column]])
            found, (memories,) = chain.apply(logits[None], history, [states])
            message = f"{_name(row)} is {row.tokens}, then {block}, and {token} there has probability 0"
            expect(float(found[0, token]) > -torch.inf, case, message)
            states = chain.advance(states, token, memories)

    def watch(batch: "Batch") -> None:
        if "commit" in vars(batch):
            return
        commit = batch.commit

        def watched(tokens: Any, dist: Distribution, **keywords: Any) -> None:
            for place, (row, block) in enumerate(
                zip(batch.rows, as_blocks(tokens, dist.logits.shape[-1]), strict=True)
            ):
                look(row, list(block), place, dist)
            commit(tokens, dist, **keywords)

        vars(batch)["commit"] = watched

    attrs.evolve(case, strategy=around(case.strategy, before=watch)).run()


def _teacher(case: Case, row: Row) -> list[Tensor]:
    return scores(case, case.prompts[row.prompt], row.tokens)[:-1]


def _name(row: Row) -> str:
    return f"row {row.lane} of prompt {row.prompt}"


CHECKS = (
    greedy_limit,
    support,
    reported_log_probabilities,
    sequence_law_of_the_model,
    sequence_law_with_processors,
    end_of_sequence,
    length,
    stop_strings,
    half_precision_model,
)

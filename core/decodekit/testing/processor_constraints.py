"""S27: a processor that constrains the answer, compared with a check of whole answers."""

from typing import Any

import attrs
import torch
from hypothesis import strategies as st

from decodekit.history import History
from decodekit.params import params_of
from decodekit.processor import CallContext, Processor, StatefulProcessor
from decodekit.testing.check import Draw, check
from decodekit.testing.processor_subject import Case, ProcessorSubject, expect
from decodekit.testing.violation import BrokenPromiseError

__all__ = ["CHECKS"]

_LONGEST = 4
"""Tokens of the answers that are enumerated; there are at most three beside EOS."""


@attrs.frozen
class _Answers:
    """All answers up to some length: which the processor lets end there, and in which the author believes."""

    case: Case
    possible: dict[tuple[int, ...], bool]
    accepted: dict[tuple[int, ...], bool]


def _without_validator(subject: ProcessorSubject) -> str | None:
    """Why a check of answers does not apply, or None."""
    return None if subject.accepts else "no validator was given: pass accepts=, which judges whole answers"


@check("S27", skip=_without_validator, share=0.5)
def constraint_soundness(subject: ProcessorSubject, draw: Draw) -> None:
    """Every answer that may end is one that the validator accepts."""
    answers = _enumerated(subject, draw)
    wrong = [
        list(tokens) for tokens, ends in answers.possible.items() if ends and not answers.accepted[tokens]
    ]
    expect(
        not wrong, answers.case, f"answers that may end, and that the validator does not accept: {wrong[:5]}"
    )


@check("S27", skip=_without_validator, share=0.5)
def constraint_completeness(subject: ProcessorSubject, draw: Draw) -> None:
    """Every answer that the validator accepts has a probability above 0."""
    answers = _enumerated(subject, draw)
    lost = [
        list(tokens) for tokens, fine in answers.accepted.items() if fine and not answers.possible.get(tokens)
    ]
    expect(not lost, answers.case, f"answers that the validator accepts, and that can't come: {lost[:5]}")


def _enumerated(subject: ProcessorSubject, draw: Draw) -> _Answers:
    processor = draw(subject.processors())
    size = draw(st.integers(2, 4))
    eos = draw(st.integers(0, size - 1))
    others = [token for token in range(size) if token != eos]
    prompt = draw(st.lists(st.sampled_from(others), min_size=1, max_size=3))
    context = CallContext(vocab_size=size, eos_token_ids=(eos,))
    case = Case(processor, context, torch.zeros(1, size, dtype=torch.float64), History.of([prompt]))
    values = {name: getattr(processor, name) for name in params_of(subject.cls)}
    try:
        possible = _possible(case.bound(), prompt, size, eos)
    except Exception as error:  # whatever a plugin raises is a finding
        message = f"it raised {type(error).__name__}: {error}\n{case}"
        raise BrokenPromiseError(message) from error
    accepted = {
        tokens: subject.accepts is None or bool(subject.accepts(prompt, [*tokens, eos], **values))
        for tokens in _all(size, eos)
    }
    return _Answers(case, possible, accepted)


def _all(size: int, eos: int) -> list[tuple[int, ...]]:
    """Every answer up to the length, without EOS."""
    level: list[tuple[int, ...]] = [()]
    found = list(level)
    for _ in range(_LONGEST):
        level = [(*tokens, token) for tokens in level for token in range(size) if token != eos]
        found += level
    return found


def _possible(processor: Processor, prompt: list[int], size: int, eos: int) -> dict[tuple[int, ...], bool]:
    """For each answer whose tokens are possible one after the other, whether EOS is possible after it."""
    level: list[tuple[tuple[int, ...], Any]] = [
        ((), processor.init(prompt) if isinstance(processor, StatefulProcessor) else None)
    ]
    found: dict[tuple[int, ...], bool] = {}
    while level and len(level[0][0]) <= _LONGEST:
        logits = torch.zeros(len(level), size, dtype=torch.float64)
        history = History.of([prompt] * len(level), [list(tokens) for tokens, _ in level])
        if isinstance(processor, StatefulProcessor):
            out = processor.process(logits, history, [state for _, state in level])
            memory = processor.memory(logits, out)
        else:
            out = processor(logits, history)
        longer = []
        for row, ((tokens, state), scores) in enumerate(zip(level, out.tolist(), strict=True)):
            found[tokens] = scores[eos] > -torch.inf
            for token in range(size):
                if token != eos and scores[token] > -torch.inf:
                    after = state
                    if isinstance(processor, StatefulProcessor):
                        after = processor.advance(state, token, memory[row])
                    longer.append(((*tokens, token), after))
        level = longer
    return found


CHECKS = (constraint_soundness, constraint_completeness)

"""S16 to S18, S38: what a call shows while it runs, and what it says it has cost."""

import torch
from torch import Tensor

from decodekit.stream import FinishedEvent, ResultEvent, TokenEvent
from decodekit.testing.check import Draw, check
from decodekit.testing.strategy_case import expect
from decodekit.testing.strategy_subject import StrategySubject
from decodekit.testing.strategy_toys import Bytes
from decodekit.testing.strategy_traces import counted_forwards

__all__ = ["CHECKS"]


@check("S16", share=0.6)
def streaming(subject: StrategySubject, draw: Draw) -> None:
    """Streamed tokens and texts add up to the result, and each row ends once."""
    case = draw(subject.cases())
    events = case.attempt(lambda: list(case.stream()))
    rows = case.run()
    expect(isinstance(events[-1], ResultEvent), case, f"the last event is {events[-1]}")
    said = events[-1].output.sequences[:, case.inputs()["input_ids"].shape[1] :].tolist()
    for place, row in enumerate(rows):
        own = [event for event in events[:-1] if event.row == place]
        tokens = [event.token for event in own if isinstance(event, TokenEvent)]
        message = f"row {place} streamed {tokens}, is {row.tokens}, and in the result {said[place]}"
        expect(tokens == row.tokens == said[place][: len(tokens)], case, message)
        ends = [isinstance(event, FinishedEvent) for event in own]
        expect(ends == [False] * len(tokens) + [True], case, f"row {place} sent {own}")
        texts, whole = [event.text for event in own], Bytes().decode(row.tokens)
        broken = any(text.endswith("�") for text in texts[:-1])
        expect(
            "".join(texts) == whole and not broken, case, f"row {place} said {texts}, its text is {whole!r}"
        )


@check("S17")
def counters(subject: StrategySubject, draw: Draw) -> None:
    """The statistics count what happened: forward passes of the model, tokens, accepted drafts."""
    case = draw(subject.cases())
    with counted_forwards(case.model.module) as forwards:
        call = case.finished()
    stats = case.result(call).stats
    assert stats is not None  # every result of a call has them
    message = f"the model ran {len(forwards)} times, and the statistics are {stats}"
    expect(stats.forward_passes == len(forwards), case, message)
    new = sum(len(row.tokens) for row in call.rows)
    told = (stats.prompt_tokens, stats.new_tokens)
    expect(told == (sum(map(len, case.prompts)), new), case, message)
    expect(0 <= stats.accepted <= stats.drafted, case, message)


@check("S18")
def termination(subject: StrategySubject, draw: Draw) -> None:
    """Each step takes every row further, so that there are no more of them than tokens in a row."""
    case = draw(subject.cases())
    call = case.attempt(case.call)
    steps = case.attempt(lambda: sum(1 for _ in call.steps())) - 1  # the first is the prompt
    message = f"it took {steps} steps for at most {case.max_new_tokens} tokens a row"
    expect(steps <= case.max_new_tokens, case, message)


class _Listener:
    """A streamer that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[Tensor] = []
        self.ends = 0

    def put(self, tokens: Tensor) -> None:
        self.got.append(tokens)

    def end(self) -> None:
        self.ends += 1


@check("S38", share=0.5)
def observers(subject: StrategySubject, draw: Draw) -> None:
    """A streamer, scores, logits and log-probabilities change no token, and the streamer gets them all."""
    case = draw(subject.cases())
    listener = _Listener()
    plain = case.generate()
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    loud = case.generate(streamer=listener, **asked).sequences
    expect(torch.equal(plain, loud), case, f"alone {plain.tolist()}, with observers {loud.tolist()}")
    heard = torch.cat([item if item.dim() == 2 else item[:, None] for item in listener.got], dim=1)
    message = f"the streamer got {heard.tolist()} and {listener.ends} ends, the result is {plain.tolist()}"
    expect(torch.equal(heard, plain) and listener.ends == 1, case, message)


CHECKS = (streaming, counters, termination, observers)

"""Following a stream of events: what has come out so far, and the figures of it."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from decodekit.outputs import Stats
from decodekit.stream import Event, FinishedEvent, TokenEvent

__all__ = ["Answer", "follow"]


@attrs.define
class Answer:
    """What one row has given so far; it stays what it is when the user stops it.

    Attributes:
        text: the new text.
        tokens: the new token ids.
        finish_reason: why it ended; "interrupted" until it has.
        seconds: wall time, the prompt included.
        first_token_seconds: wall time until the first token; None without one.
        stats: counters of the call; None when it was interrupted.
    """

    text: str = ""
    tokens: list[int] = attrs.field(factory=list)
    finish_reason: str = "interrupted"
    seconds: float = 0.0
    first_token_seconds: float | None = None
    stats: Stats | None = None

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped it."""
        return self.stats is None

    def figures(self) -> dict[str, Any]:
        """The measured figures by name; those of an interrupted call are fewer.

        The speed is that of the tokens after the first, which waits for the prompt; None without any.
        """
        decoding = self.seconds - (self.first_token_seconds or 0.0)
        speed = round((len(self.tokens) - 1) / decoding, 2) if len(self.tokens) > 1 else None
        measured = {
            "new_tokens": len(self.tokens),
            "tokens_per_second": speed,
            "first_token_seconds": self.first_token_seconds and round(self.first_token_seconds, 3),
        }
        if self.stats is None:
            return measured
        return measured | {
            "prompt_tokens": self.stats.prompt_tokens,
            "prefill_seconds": round(self.stats.prefill_seconds, 3),
            "decode_seconds": round(self.stats.decode_seconds, 3),
            "strategy": self.stats.strategy,
            "chain": list(self.stats.chains),
        }


def follow(events: Iterable[Event], show: Callable[[str], None]) -> Answer:
    """Collect the events of one row and show its text as it grows; Ctrl-C ends it early."""
    answer = Answer()
    start = time.perf_counter()
    try:
        for event in events:
            answer.seconds = time.perf_counter() - start
            if isinstance(event, TokenEvent):
                answer.tokens.append(event.token)
                answer.first_token_seconds = answer.first_token_seconds or answer.seconds
            elif isinstance(event, FinishedEvent):
                answer.finish_reason = event.reason
            else:
                answer.stats = event.output.stats
                break
            answer.text += event.text
            show(event.text)
    except KeyboardInterrupt:
        answer.finish_reason = "interrupted"
    return answer

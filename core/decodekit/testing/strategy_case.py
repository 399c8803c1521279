"""One call of generate, as the checks of a strategy draw, change, run and show it."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from decodekit.call import Call, Options, prepare
from decodekit.generate import generate
from decodekit.outputs import GenerateOutput
from decodekit.processor import Processor
from decodekit.row import Row
from decodekit.strategy import Strategy
from decodekit.stream import Event, stream
from decodekit.testing.strategy_models import KitModel
from decodekit.testing.strategy_toys import Bytes, InterruptionError
from decodekit.testing.violation import BrokenPromiseError

if TYPE_CHECKING:
    from decodekit.batch import Batch

__all__ = ["Case", "around", "expect", "expect_same"]


@attrs.frozen(eq=False, kw_only=True)
class Case:
    """One call of generate: what a check draws, changes and shows when it fails.

    Attributes:
        strategy: the instance under test.
        model: what it decodes from.
        prompts: B lists of token ids, of different lengths.
        seeds: one a prompt.
        max_new_tokens: the most generated tokens of a row.
        eos: the EOS ids of the call.
        pad: fills the left of shorter prompts and the right of shorter results; may be a token like others.
        more_padding: needless columns on the left.
        processors: the whole chain.
        copies: rows a prompt.
    """

    strategy: Strategy
    model: KitModel
    prompts: list[list[int]]
    seeds: list[int]
    max_new_tokens: int = 8
    eos: tuple[int, ...] = ()
    pad: int = 0
    more_padding: int = 0
    processors: tuple[Processor, ...] = ()
    copies: int = 1

    def inputs(self) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, int64 [B, T], padded on the left."""
        width = max(map(len, self.prompts)) + self.more_padding
        ids = [[self.pad] * (width - len(prompt)) + prompt for prompt in self.prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in self.prompts]
        shape = (len(self.prompts), width)
        return {
            "input_ids": torch.tensor(ids, dtype=torch.long).view(shape),
            "attention_mask": torch.tensor(mask, dtype=torch.long).view(shape),
        }

    def arguments(self, **more: Any) -> dict[str, Any]:
        """The keywords of `decodekit.generate`; ``more`` comes on top."""
        copies = {"num_return_sequences": self.copies} if self.copies > 1 else {}
        return {
            "strategy": self.strategy,
            "processors": self.processors,
            "seed": self.seeds,
            "max_new_tokens": self.max_new_tokens,
            "eos_token_id": list(self.eos) or None,
            "pad_token_id": self.pad,
            "bos_token_id": 0,
            **self.inputs(),
            **copies,
            **more,
        }

    def call(self, **more: Any) -> Call:
        """The call, not yet run; it keeps log-probabilities."""
        values = self.arguments(**more)
        options = {name: values.pop(name) for name in attrs.fields_dict(Options) if name in values}
        return prepare(self.model.module, None, None, values, Options(**options, keep_logprobs=True))

    def stream(self) -> Iterator[Event]:
        """The call as events, with the kit's own tokenizer."""
        values = self.arguments()
        prompt = {name: values.pop(name) for name in self.inputs()}
        return stream(self.model.module, Bytes(), prompt, **values)

    def attempt(self, run: Callable[[], Any]) -> Any:
        """What ``run`` returns; whatever a plugin raises is a finding."""
        try:
            return run()
        except (InterruptionError, BrokenPromiseError):
            raise
        except Exception as error:
            message = f"it raised {type(error).__name__}: {error}\n{self}"
            raise BrokenPromiseError(message) from error

    def finished(self, **more: Any) -> Call:
        """The call after its last step."""

        def run() -> Call:
            call = self.call(**more)
            for _ in call.steps():
                pass
            return call

        done: Call = self.attempt(run)
        return done

    def result(self, call: Call) -> GenerateOutput:
        """What a finished call returns."""
        output: GenerateOutput = self.attempt(call.result)
        return output

    def run(self, **more: Any) -> list[Row]:
        """The finished rows, in the order of the result: as many as were asked for."""
        rows = self.finished(**more).rows
        wanted = len(self.prompts) * self.copies
        expect(len(rows) == wanted, self, f"{len(rows)} rows came out, and {wanted} were asked for")
        return rows

    def generate(self, **more: Any) -> Any:
        """What `decodekit.generate` returns."""
        return self.attempt(lambda: generate(self.model.module, **self.arguments(**more)))

    def take(self, places: Sequence[int]) -> "Case":
        """The call with these prompts, in that order."""
        return attrs.evolve(
            self,
            prompts=[self.prompts[place] for place in places],
            seeds=[self.seeds[place] for place in places],
        )

    def __str__(self) -> str:
        lines = {
            "strategy": repr(self.strategy),
            "model": self.model,
            "prompts": self.prompts,
            "seeds": self.seeds,
            "max_new_tokens": self.max_new_tokens,
            "eos_token_ids": self.eos,
            "pad_token_id": f"{self.pad}, {self.more_padding} needless columns",
            "processors": self.processors,
            "rows a prompt": self.copies,
        }
        return "\n".join(f"{name:<16}{value}" for name, value in lines.items())


def expect(condition: bool | Tensor, case: Case, message: str) -> None:
    """Raise `BrokenPromiseError` with the message and the case when the condition does not hold."""
    if not condition:
        raise BrokenPromiseError(f"{message}\n{case}")  # noqa: EM102  # made of both, and only here


def expect_same(case: Case, rows: list[Row], others: list[Row], what: str) -> None:
    """Raise `BrokenPromiseError` when tokens, reasons or log-probabilities differ."""
    expect(len(rows) == len(others), case, f"{len(rows)} rows came out, {what} {len(others)}")
    for row, other in zip(rows, others, strict=True):
        message = (
            f"row {row.lane} of prompt {row.prompt} is {row.tokens} ({row.finish_reason}), "
            f"{what} {other.tokens} ({other.finish_reason})"
        )
        expect((row.tokens, row.finish_reason) == (other.tokens, other.finish_reason), case, message)
        mine, theirs = (torch.tensor(item.logprobs, dtype=torch.float64) for item in (row, other))
        near = torch.allclose(mine, theirs, 0, case.model.tolerance)
        expect(near, case, f"{message}; their log-probabilities are {row.logprobs} and {other.logprobs}")


def around(
    strategy: Strategy,
    before: Callable[["Batch"], None] = lambda batch: None,
    after: Callable[["Batch"], None] = lambda batch: None,
) -> Strategy:
    """The same strategy, with something done before and after its start and each of its steps."""
    cls = type(strategy)

    def start(self: Strategy, batch: "Batch") -> None:
        before(batch)
        cls.start(self, batch)
        after(batch)

    def step(self: Strategy, batch: "Batch") -> None:
        before(batch)
        cls.step(self, batch)
        after(batch)

    fields = attrs.fields(cls) if attrs.has(cls) else ()
    values = {field.alias: getattr(strategy, field.name) for field in fields if field.init}
    made: Strategy = type(cls.__name__, (cls,), {"start": start, "step": step})(**values)
    return made

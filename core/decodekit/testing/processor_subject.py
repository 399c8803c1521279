"""A processor under test, and the inputs that its checks draw."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from hypothesis import strategies as st
from torch import Tensor

from decodekit.errors import ParameterError
from decodekit.history import History
from decodekit.params import params_of
from decodekit.processor import CallContext, Processor, StatefulProcessor
from decodekit.testing import generators
from decodekit.testing.violation import BrokenPromiseError

__all__ = ["Case", "Oracle", "OracleRow", "ProcessorSubject", "Validator", "apply", "expect", "states_of"]


@attrs.frozen
class OracleRow:
    """What an oracle may look at: one row, in plain Python.

    Attributes:
        logits: V numbers; impossible tokens are -inf.
        tokens: the row's tokens, prompt first.
        prompt_length: how many of the tokens are the prompt.
        eos_token_ids: the EOS ids of the call.
        max_new_tokens: the most tokens that a row may get, or None.
    """

    logits: list[float]
    tokens: list[int]
    prompt_length: int
    eos_token_ids: tuple[int, ...]
    max_new_tokens: int | None = None


Oracle = Callable[..., list[float]]
"""``oracle(row, **parameters) -> logits``: a slow reference in plain Python, easy to check by eye."""


Validator = Callable[..., bool]
"""``accepts(prompt, tokens, **parameters) -> bool``: whether an answer is as it must be, EOS at its end."""


@attrs.frozen(eq=False)
class Case:
    """One call of a processor: what a check draws, changes and shows when it fails.

    Attributes:
        processor: before `bind`.
        context: what it is bound to.
        logits: [B, V].
        history: of the B rows.
    """

    processor: Processor
    context: CallContext
    logits: Tensor
    history: History

    def bound(self) -> Processor:
        """The processor for one call."""
        return self.processor.bind(self.context)

    def with_parameters(self, **values: Any) -> "Case":
        """The case of a processor with other parameters."""
        processor = attrs.evolve(self.processor, **values)  # type: ignore[misc]  # what has parameters is an attrs class
        return attrs.evolve(self, processor=processor)

    def run(self, *, past: Tensor | None = None, **changes: Any) -> Tensor:
        """The result; with other ``logits``, ``history``, ``context`` or ``processor`` where given.

        The logits of which states come are ``past``, or else those of now.
        """
        case = attrs.evolve(self, **changes)
        try:
            return apply(case.bound(), case.logits, case.history, past)
        except Exception as error:  # whatever a plugin raises is a finding
            message = f"it raised {type(error).__name__}: {error}\n{case}"
            raise BrokenPromiseError(message) from error

    def row(self, index: int) -> OracleRow:
        """A row as an oracle sees it."""
        return OracleRow(
            self.logits[index].tolist(),
            self.history.row(index),
            int(self.history.prompt_lengths[index]),
            self.context.eos_token_ids,
            self.context.max_new_tokens,
        )

    def __str__(self) -> str:
        rows = [self.row(index) for index in range(len(self.history))]
        lines = [f"processor      {self.processor!r}", f"dtype          {self.logits.dtype}"]
        lines += [f"logits         {row.logits}" for row in rows]
        for row in rows:
            prompt, generated = row.tokens[: row.prompt_length], row.tokens[row.prompt_length :]
            lines.append(f"history        {_in_short(prompt)} + {generated}")
        lines.append(f"padding        {self.history.pads.tolist()}")
        lines.append(f"eos_token_ids  {self.context.eos_token_ids}")
        return "\n".join([*lines, f"max_new_tokens {self.context.max_new_tokens}"])


def _in_short(tokens: list[int]) -> str:
    return str(tokens) if len(tokens) <= 20 else f"{tokens[:10]} and so on, {len(tokens)} tokens"


def expect(condition: bool | Tensor, case: Case, message: str) -> None:
    """Raise `BrokenPromiseError` with the message and the case when the condition does not hold."""
    if not condition:
        raise BrokenPromiseError(f"{message}\n{case}")  # noqa: EM102  # made of both, and only here


def apply(processor: Processor, logits: Tensor, history: History, past: Tensor | None = None) -> Tensor:
    """Call a bound processor; one with states gets those that it would have at the end of the history."""
    if isinstance(processor, StatefulProcessor):
        states = states_of(processor, logits if past is None else past, history)
        return processor.process(logits, history, states)
    return processor(logits, history)


def states_of(processor: StatefulProcessor[Any], logits: Tensor, history: History) -> list[Any]:
    """One state a row, made by walking through its generated tokens.

    The logits of the past are those of now with the token that was chosen made the largest, so
    that they are relabelled, padded and shifted together with them.
    """
    return [
        _walk(processor, logits[i : i + 1], history.row(i), int(history.prompt_lengths[i]))
        for i in range(len(history))
    ]


def _walk(processor: StatefulProcessor[Any], logits: Tensor, tokens: list[int], prompt_length: int) -> Any:
    prompt = tokens[:prompt_length]
    state = processor.init(prompt)
    for end in range(prompt_length, len(tokens)):
        past = logits.clone()
        past[0, tokens[end]] = logits.max() + 1
        history = History.of([prompt], [tokens[prompt_length:end]])
        memory = processor.memory(past, processor.process(past, history, [state]))
        state = processor.advance(state, tokens[end], memory[0].float())
    return state


@attrs.frozen
class ProcessorSubject:
    """A processor class under test.

    Attributes:
        cls: the class.
        fixed: the only instance to look at, when the author gave one.
        examples: parameter values to choose from; empty when they come from the declared ranges.
        oracle: a slow reference, or None.
        accepts: says which answers a constraint is for, or None.
    """

    cls: type[Processor]
    fixed: Processor | None = None
    examples: Sequence[Mapping[str, Any]] = ()
    oracle: Oracle | None = None
    accepts: Validator | None = None

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"processor {self.cls.NAME or self.cls.__name__}"

    @property
    def stateful(self) -> bool:
        """Whether it keeps a state a row."""
        return issubclass(self.cls, StatefulProcessor)

    def declares(self, law: str) -> bool:
        """Whether its LAWS hold this promise."""
        return bool(getattr(self.cls.LAWS, law))

    def processors(self) -> st.SearchStrategy[Processor]:
        """Instances with parameters from the examples or the declared ranges."""
        return self._instances

    @functools.cached_property
    def _instances(self) -> st.SearchStrategy[Processor]:
        return generators.instances(self.cls, self.name, self.fixed, self.examples)

    def values_of(self, name: str) -> st.SearchStrategy[Any]:
        """Values of one parameter."""
        named = [values[name] for values in self.examples if name in values]
        strategy = st.sampled_from(named) if named else generators.parameter_values(params_of(self.cls)[name])
        if strategy is None:
            message = (
                f"{self.name} needs values of {name}, which has no range: pass examples=[{{{name!r}: ...}}]"
            )
            raise ParameterError(message)
        return strategy

    def cases(
        self,
        *,
        least_rows: int = 1,
        beyond: int = 0,
        distinct: bool = False,
        dtypes: Sequence[torch.dtype] = generators.EXACT,
    ) -> st.SearchStrategy[Case]:
        """Calls with ``least_rows`` to three rows; the rest is as in `generators`."""
        return _cases(self.processors(), _calls(least_rows, beyond, distinct, tuple(dtypes)))

    def float64_cases(self, *, distinct: bool = False, beyond: int = 0) -> st.SearchStrategy[Case]:
        """Calls in float64, where a law is not blurred by rounding."""
        return self.cases(distinct=distinct, beyond=beyond, dtypes=(torch.float64,))


@st.composite
def _cases(
    draw: st.DrawFn,
    processors: st.SearchStrategy[Processor],
    calls: st.SearchStrategy[tuple[CallContext, Tensor, History]],
) -> Case:
    return Case(draw(processors), *draw(calls))


@functools.cache
def _calls(
    least: int, beyond: int, distinct: bool, dtypes: tuple[torch.dtype, ...]
) -> st.SearchStrategy[tuple[CallContext, Tensor, History]]:
    """What a processor is given, for ``least`` to three rows."""

    def make(choices: generators.Choices) -> tuple[CallContext, Tensor, History]:
        vocab_size, dtype = choices.among(generators.VOCAB_SIZES), choices.among(dtypes)
        context = generators.context_of(choices, vocab_size)
        logits, sequences = [], []
        for _ in range(least + choices.below(4 - least)):
            logits.append(generators.logit_row(choices, vocab_size, distinct=distinct))
            sequences.append(choices.sequence(vocab_size, beyond=beyond))
        history = generators.history_of(choices, vocab_size, sequences)
        return context, torch.stack(logits).to(dtype), history

    return generators.chosen(make, 3, vocab_size=max(generators.VOCAB_SIZES) + beyond)

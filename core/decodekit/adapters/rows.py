"""A processor driven by an engine that shows rows of tokens and nothing else."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from decodekit.errors import CapabilityError
from decodekit.history import History
from decodekit.processor import CallContext, Processor, StatefulProcessor
from decodekit.registry import registry

__all__ = ["Rows", "resolve"]

_MOST_STATES = 64
_Key = tuple[int, tuple[int, ...]]


def resolve(processor: Any) -> Processor:
    """The processor from a name, a pair ``(name, {parameter: value})``, a class or an instance.

    Raises:
        UnknownNameError, ParameterError, PluginError: as `decodekit.generate` would.
    """
    made: Processor = registry().resolve("processors", processor)
    return made


class Rows:
    """Applies one processor to rows that are given as lists of tokens.

    A processor with states gets the state of each row from that of the row without its last token, which
    the engine must have shown before: one token after the other, drafts and beams included.

    Args:
        processor: before `Processor.bind`; it is bound at the first logits, whose width is the vocabulary.
        context: what the engine knows; ``vocab_size`` is filled in.
    """

    def __init__(self, processor: Processor, context: CallContext | None = None) -> None:
        self._unbound = processor
        self._context = CallContext(vocab_size=0) if context is None else context
        self._bound: Processor | None = None
        self._states: OrderedDict[_Key, tuple[Any, Tensor]] = OrderedDict()

    def __call__(
        self, logits: Tensor, rows: Sequence[Sequence[int]], prompt_lengths: Sequence[int]
    ) -> Tensor:
        """The processed logits.

        Args:
            logits: [B, V]; computed with in float32 or better, returned in the same dtype.
            rows: the tokens of each row, prompt first, without padding.
            prompt_lengths: how many of them are the prompt.

        Raises:
            CapabilityError: a state is needed, and the engine has not shown the row token by token.
        """
        processor = self._bind(logits.shape[-1])
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if not isinstance(processor, StatefulProcessor):
            return processor(exact, _history(rows, prompt_lengths, logits.device)).to(logits.dtype)
        out = exact.clone()
        for length in sorted({len(row) for row in rows}):  # a draft's state needs that of its beginning
            places = [place for place, row in enumerate(rows) if len(row) == length]
            out[places] = self._with_states(
                processor,
                exact[places],
                [tuple(rows[place]) for place in places],
                [prompt_lengths[place] for place in places],
            )
        self._forget(2 * len(rows))
        return out.to(logits.dtype)

    def _with_states(
        self,
        processor: StatefulProcessor[Any],
        logits: Tensor,
        rows: Sequence[tuple[int, ...]],
        lengths: Sequence[int],
    ) -> Tensor:
        states = [self._state(processor, row, length) for row, length in zip(rows, lengths, strict=True)]
        out = processor.process(logits, _history(rows, lengths, logits.device), states)
        memory = processor.memory(logits, out)
        for place, row in enumerate(rows):
            key = (lengths[place], row)
            self._states[key] = (states[place], memory[place].float())
            self._states.move_to_end(key)
        return out

    def _state(self, processor: StatefulProcessor[Any], row: tuple[int, ...], prompt_length: int) -> Any:
        if len(row) <= prompt_length:
            return processor.init(list(row))
        before = self._states.get((prompt_length, row[:-1]))
        if before is None:
            message = (
                f"{processor.NAME} keeps a state for each row, and this engine did not show it token by "
                "token: use one adapter for each call, without speculation, or decodekit.generate"
            )
            raise CapabilityError(message)
        state, memory = before
        return processor.advance(state, row[-1], memory)

    def _forget(self, least: int) -> None:
        while len(self._states) > max(_MOST_STATES, least):
            self._states.popitem(last=False)

    def _bind(self, vocab_size: int) -> Processor:
        if self._bound is None:
            self._bound = self._unbound.bind(attrs.evolve(self._context, vocab_size=vocab_size))
        return self._bound


def _history(rows: Sequence[Sequence[int]], prompt_lengths: Sequence[int], device: torch.device) -> History:
    pairs = list(zip(rows, prompt_lengths, strict=True))
    made = History.of([row[:size] for row, size in pairs], [row[size:] for row, size in pairs])
    return History(made.tokens.to(device), made.pads.to(device), made.prompt_lengths.to(device))

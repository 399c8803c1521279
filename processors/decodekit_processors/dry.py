"""DRY (don't repeat yourself): what would continue a repetition loses, the longer the more."""

import math
from typing import ClassVar

import attrs
import torch
from decodekit import CallContext, History, Laws, ParameterError, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._common import lowered, wide

__all__ = ["DRY"]

_LARGEST = 1e6
"""No penalty is larger, so that a long repetition doesn't overflow; it is out of reach for any logit."""
_LONGEST = 1e6
"""No match is longer, when the base is so near to 1 that the penalty hardly grows."""


@attrs.frozen
class DRY(Processor):
    """Penalise a token when the end of the text, followed by this token, occurred before.

    Prompt and generated tokens both count. A match ends at a breaker, such as a newline or the marks of
    a chat template, and a breaker of one token is never penalised. A text as breaker is the token sequence
    that the tokenizer makes of it alone: a newline that is part of a longer token breaks nothing.
    The whole text is looked at, as in the first version; llama.cpp's default window is 64.

    Source: p-e-w (2024), text-generation-webui, pull request 5677. During a call the matches come from a
        suffix automaton of the row, whatever its length; llama.cpp walks over all of it.
    Range: multiplier in [0, inf), in logits, 0 changes nothing; base in [1, inf); allowed_length in [1, inf)
        and window in [0, inf), in tokens, window 0 is all; breakers are texts, breaker_ids sequences of ids.
    Shape: logits [B, V] -> [B, V].
    Law: ``x_i - multiplier * base ** (L - allowed_length)`` where the longest such match has
        ``L >= allowed_length`` tokens; the penalty is at most 1e6.
    Raises: ParameterError when a parameter is not in its range, a breaker is empty, or texts are given
        and the call has no tokenizer.
    """

    NAME: ClassVar[str] = "dry"
    LAWS: ClassVar[Laws] = Laws(shift_invariant=True, permutation_equivariant=True, upper_set=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.PENALTY)

    multiplier: float = param(
        0.8, range="[0, inf)", neutral=0.0, help="The penalty of the shortest match that counts; 0 is off."
    )
    base: float = param(1.75, range="[1, inf)", help="By what each token more multiplies the penalty.")
    allowed_length: int = param(2, range="[1, inf)", help="The length of the shortest match that counts.")
    window: int = param(0, range="[0, inf)", help="How many of the last tokens are looked at; 0 is all.")
    breakers: tuple[str, ...] = param((), help="Texts over which no match goes; they need a tokenizer.")
    breaker_ids: tuple[tuple[int, ...], ...] = param(
        (), help="The same as token ids, e.g. [[198], [25, 13]]."
    )
    _sequences: tuple[tuple[int, ...], ...] = ()

    def bind(self, context: CallContext) -> "DRY":
        """Return the processor with all breakers as token ids."""
        if self.breakers and context.tokenizer is None:
            message = (
                f"breakers={self.breakers!r} are texts and need a tokenizer: "
                "pass tokenizer=, or give breaker_ids"
            )
            raise ParameterError(message)
        texts = [context.tokenizer.encode(text, add_special_tokens=False) for text in self.breakers]
        sequences = (*self.breaker_ids, *map(tuple, texts))
        if not all(sequences):
            message = (
                f"breakers={self.breakers!r}, breaker_ids={self.breaker_ids!r}: "
                "each must have at least one token"
            )
            raise ParameterError(message)
        return attrs.evolve(self, sequences=sequences)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits, less the penalties of what would continue a repetition."""
        if self.multiplier == 0:
            return logits
        found = [self._matches(history, row, logits.shape[-1]) for row in range(len(history))]
        width = max(map(len, found))
        ids = [[*row, *[-1] * (width - len(row))] for row in found]
        lengths = [[*row.values(), *[0] * (width - len(row))] for row in found]
        beyond = torch.tensor(lengths, dtype=wide(logits)).to(logits.device) - self.allowed_length
        penalties = (self.multiplier * self.base**beyond).clamp(max=_LARGEST)
        return lowered(logits, torch.tensor(ids, dtype=torch.long).to(logits.device), penalties)

    def _matches(self, history: History, row: int, vocab_size: int) -> dict[int, int]:
        """For each token the length of the longest match that it would continue."""
        found = history.repeats(row, least=self.allowed_length, most=self._most, window=self.window)
        before = self._most + max(map(len, self._sequences), default=0)
        longest = self._since_breaker(history.recent(row, self.window or before))
        if longest < self.allowed_length:
            return {}
        single = {sequence[0] for sequence in self._sequences if len(sequence) == 1}
        return {
            token: min(length, longest)
            for token, length in found.items()
            if token < vocab_size and token not in single
        }

    @property
    def _most(self) -> int:
        """The length from which on a match has the largest penalty."""
        if self.base == 1 or self.multiplier == 0:
            return self.allowed_length
        beyond = math.log(_LARGEST / self.multiplier) / math.log(self.base)
        return self.allowed_length + max(0, math.ceil(min(beyond, _LONGEST))) + 1

    def _since_breaker(self, tokens: list[int]) -> int:
        """How many tokens follow the last breaker; all of them when there is none."""
        for count in range(len(tokens)):
            end = len(tokens) - count
            for sequence in self._sequences:
                start = end - len(sequence)
                if start >= 0 and tokens[end - 1] == sequence[-1] and tuple(tokens[start:end]) == sequence:
                    return count
        return len(tokens)

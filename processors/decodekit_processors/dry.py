"""DRY (don't repeat yourself): what would continue a repetition loses, the longer the more."""

from collections.abc import Iterator
from typing import ClassVar

import attrs
from decodekit import CallContext, History, Laws, ParameterError, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._common import wide

__all__ = ["DRY"]

_LARGEST = 1e6
"""No penalty is larger, so that a long repetition doesn't overflow; it is out of reach for any logit."""


@attrs.frozen
class DRY(Processor):
    """Penalise a token when the end of the text, followed by this token, occurred before.

    Prompt and generated tokens both count. A match ends at a breaker, such as a newline or the marks of
    a chat template, and a breaker of one token is never penalised. A text as breaker is the token sequence
    that the tokenizer makes of it alone: a newline that is part of a longer token breaks nothing.
    The whole text is looked at, as in the first version; llama.cpp's default window is 64.

    Source: p-e-w (2024), text-generation-webui, pull request 5677; cost linear in the history, by the
        Z-algorithm, as in llama.cpp, pull request 9702.
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
        lengths = logits.new_zeros(logits.shape, dtype=wide(logits))
        for row in range(len(history)):
            recent = history.row(row)[-self.window :]  # with window 0 that is all
            found = self._matches(recent, logits.shape[-1])
            lengths[row, list(found)] = lengths.new_tensor(list(found.values()))
        beyond = lengths - self.allowed_length
        penalties = (self.multiplier * self.base**beyond).clamp(max=_LARGEST) * (beyond >= 0)
        return (logits - penalties).to(logits.dtype)

    def _matches(self, tokens: list[int], vocab_size: int) -> dict[int, int]:
        """For each token the length of the longest match that it would continue."""
        longest = self._since_breaker(tokens)
        single = {sequence[0] for sequence in self._sequences if len(sequence) == 1}
        backwards, found = tokens[::-1], dict[int, int]()
        for start, length in _overlaps(backwards):
            token = backwards[start - 1]
            if token < vocab_size and token not in single:
                found[token] = max(found.get(token, 0), min(length, longest))
        return found

    def _since_breaker(self, tokens: list[int]) -> int:
        """How many tokens follow the last breaker; all of them when there is none."""
        for count in range(len(tokens)):
            end = len(tokens) - count
            for sequence in self._sequences:
                start = end - len(sequence)
                if start >= 0 and tokens[end - 1] == sequence[-1] and tuple(tokens[start:end]) == sequence:
                    return count
        return len(tokens)


def _overlaps(tokens: list[int]) -> Iterator[tuple[int, int]]:
    """Each start from 1 on, and how many tokens agree there with those from 0 on (the Z-algorithm)."""
    lengths, left, right = [0] * len(tokens), 0, 0
    for start in range(1, len(tokens)):
        length = max(0, min(right - start, lengths[start - left]))
        while start + length < len(tokens) and tokens[length] == tokens[start + length]:
            length += 1
        if start + length > right:
            left, right = start, start + length
        lengths[start] = length
        yield start, length

"""A draft model with another tokenizer, by way of text."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
from decodekit import Batch, CallContext, Draft, Drafter, Pick, param

from decodekit_strategies.drafters._translation import Translator, decode, encode

__all__ = ["Universal"]


@attrs.frozen
class Universal(Drafter):
    """A model with another tokenizer writes on greedily, and its text is tokenized for the target.

    Source: Timor et al. (2025), arXiv 2502.05202, algorithm 2 (exact match of strings);
        Hugging Face, universal assisted generation (2024).
    Range: confidence_threshold in [0, 1]; the lookbehinds in [1, inf).
    Shape: one forward of the assistant for each of its tokens, for all rows at once, and two tokenizations a
        row and step of at most lookbehind and drafted tokens.
    Law: deterministic: a draft is a function of the row's tokens. The assistant stays as it is.
    Raises: ParameterError when the call has no tokenizer.
    """

    NAME: ClassVar[str] = "universal"

    model: Any = param(help="A smaller model of transformers, of any vocabulary.")
    tokenizer: Any = param(help="Its tokenizer.")
    confidence_threshold: float = param(
        0.4, range="[0, 1]", help="A draft ends with a token that the model gives less than this."
    )
    assistant_lookbehind: int = param(10, range="[1, inf)", help="Its last tokens that are decoded again.")
    target_lookbehind: int = param(
        10, range="[1, inf)", help="The row's last tokens that are encoded for it again."
    )
    _translator: Any = attrs.field(default=None, repr=False, eq=False)
    _vocab_size: int = attrs.field(default=0, repr=False, eq=False)

    @property
    def foreign_models(self) -> Mapping[str, Any]:
        """The assistant."""
        return {self.NAME: self.model}

    def bind(self, model: Any, context: CallContext) -> "Universal":
        """Take the target's tokenizer from the call."""
        translator = Translator.of(self.NAME, context, self.tokenizer, self.target_lookbehind)
        return attrs.evolve(self, translator=translator, vocab_size=context.vocab_size)

    def draft(self, batch: Batch, lengths: Sequence[int], pick: Pick) -> Draft:
        """Write on in the assistant's tokens, and translate what is new."""
        before = [self._translator.tokens_of(row) for row in batch.rows]
        after = self._written(batch, before, lengths)
        parts = zip(before, after, lengths, strict=True)
        return Draft([self._translated(old, new)[:most] for old, new, most in parts])

    def _written(self, batch: Batch, before: Sequence[list[int]], lengths: Sequence[int]) -> list[list[int]]:
        after = [list(tokens) for tokens in before]
        open_rows = [most > 0 for most in lengths]
        while any(open_rows):
            logits = batch.own_logits(after, session=self.NAME)
            chosen, tokens = logits.softmax(-1).max(-1)
            for row, (token, sure) in enumerate(zip(tokens.tolist(), chosen.tolist(), strict=True)):
                if open_rows[row] and token != self.tokenizer.eos_token_id:
                    after[row].append(token)
                    full = len(after[row]) - len(before[row]) >= lengths[row]
                    open_rows[row] = sure >= self.confidence_threshold and not full
                else:
                    open_rows[row] = False
        return after

    def _translated(self, before: list[int], after: list[int]) -> list[int]:
        """The target's tokens of what the assistant wrote; none where it merges with the row's end."""
        if len(after) == len(before):
            return []
        start = max(len(before) - self.assistant_lookbehind, 0)
        old, new = (
            encode(self._translator.target, decode(self.tokenizer, tokens[start:]))
            for tokens in (before, after)
        )
        fits = new[: len(old)] == old and all(token < self._vocab_size for token in new)
        return new[len(old) :] if fits else []

"""Looking the end of a row up in the row itself."""

from collections.abc import Sequence
from typing import ClassVar

import attrs
from decodekit import Batch, Draft, Drafter, Pick, param

from decodekit_strategies.drafters._memory import of_row

__all__ = ["PromptLookup"]


@attrs.define(eq=False)
class _Ends:
    """Where each n-gram of a row ended first."""

    largest: int
    tokens: list[int] = attrs.field(factory=list)
    places: dict[tuple[int, ...], int] = attrs.field(factory=dict)

    def extend(self, token: int) -> None:
        """Note the n-grams that end before ``token``: those that end with it have no continuation yet."""
        end = len(self.tokens)
        for size in range(1, min(self.largest, end) + 1):
            self.places.setdefault(tuple(self.tokens[end - size :]), end)

    def continuation(self, most: int) -> list[int]:
        """What followed the longest n-gram at the end, where it stood first."""
        count = len(self.tokens)
        for size in range(min(self.largest, count - 1), 0, -1):
            place = self.places.get(tuple(self.tokens[count - size :]))
            if place is not None:
                return self.tokens[place : place + most]
        return []


@attrs.frozen
class PromptLookup(Drafter):
    """What followed the last tokens where they stood before, in the prompt or the output.

    The longest match of at most max_matching_ngram_size tokens counts, and of those the first.

    Source: Saxena (2023), prompt lookup decoding, https://github.com/apoorvumang/prompt-lookup-decoding;
        the order of matches is transformers'.
    Range: max_matching_ngram_size in [1, inf).
    Shape: no forward pass; time for max_matching_ngram_size look-ups a row and new token.
    Law: deterministic: a draft is a function of the row's tokens.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "prompt_lookup"

    max_matching_ngram_size: int = param(2, range="[1, inf)", help="Tokens that agree at most.")

    def draft(self, batch: Batch, lengths: Sequence[int], pick: Pick) -> Draft:
        """Look each row's end up in the row."""
        drafts = []
        for row, most in zip(batch.rows, lengths, strict=True):
            ends = of_row(row, self.NAME, _Ends(self.max_matching_ngram_size))
            drafts.append(ends.continuation(most))
        return Draft(drafts)

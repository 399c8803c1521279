"""What drafts for assisted decoding. A wrong draft costs time, and never a token."""

from collections.abc import Sequence
from typing import Protocol

import attrs
from decodekit import Batch

__all__ = ["DRAFT", "DraftModel", "Drafter", "PromptLookup"]

DRAFT = "draft"


class Drafter(Protocol):
    """Proposes the next tokens of every row."""

    def draft(self, batch: Batch, lengths: Sequence[int]) -> list[list[int]]:
        """At most ``lengths[r]`` tokens for row ``r``; none is fine."""
        ...


@attrs.frozen
class PromptLookup:
    """What followed the last tokens where they stood before (Saxena 2023, prompt lookup decoding).

    The longest match counts, and of those the first, as in transformers.
    """

    max_matching_ngram_size: int

    def draft(self, batch: Batch, lengths: Sequence[int]) -> list[list[int]]:
        """Look each row's end up in the row."""
        return [self._continuation(row.since(0), most) for row, most in zip(batch.rows, lengths, strict=True)]

    def _continuation(self, tokens: list[int], most: int) -> list[int]:
        for size in range(min(self.max_matching_ngram_size, len(tokens) - 1), 0, -1):
            end = tokens[-size:]
            for start in range(len(tokens) - size):
                if tokens[start : start + size] == end:
                    return tokens[start + size : start + size + most]
        return []


@attrs.frozen
class DraftModel:
    """A smaller model that decodes as the target does: the same chain, the same noise."""

    threshold: float
    do_sample: bool

    def draft(self, batch: Batch, lengths: Sequence[int]) -> list[list[int]]:
        """Decode token by token; a row stops at its length, or after a token of little probability."""
        drafts: list[list[int]] = [[] for _ in batch.rows]
        open_rows = [most > 0 for most in lengths]
        q = None
        while any(open_rows):
            q = batch.dist(batch.logits(drafts, session=DRAFT, last=True), drafts, after=q)
            tokens = batch.draw(q) if self.do_sample else q.argmax()
            sure = (q.probs.gather(1, tokens[:, None])[:, 0] >= self.threshold).tolist()
            for row, token in enumerate(tokens.tolist()):
                if open_rows[row]:
                    drafts[row] = [*drafts[row], token]
                    open_rows[row] = sure[row] and len(drafts[row]) < lengths[row]
        return drafts

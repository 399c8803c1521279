"""Keeps a session in step with the committed tokens, so that a strategy never rolls back by hand."""

from collections.abc import Sequence

import torch

from decodekit.distribution import Drafts
from decodekit.forward import Forward
from decodekit.row import Row
from decodekit.session import Session

__all__ = ["TrackedSession"]


class TrackedSession:
    """A session, what it was fed beyond the committed tokens, and the output after the committed ones."""

    def __init__(
        self, session: Session, name: str = "", *, hidden: bool = False, attentions: bool = False
    ) -> None:
        """Track a session that was not fed yet.

        Args:
            session: may hold tokens of a conversation that goes on.
            name: what rows call it in their contexts.
            hidden: whether its outputs have hidden states.
            attentions: whether they have attentions.
        """
        self.session = session
        self._name = name
        self._asked = {"hidden": hidden, "attentions": attentions}
        self._tentative: list[list[int]] = []
        self._next: Forward | None = None  # after the committed tokens, of the rows that are known
        self._known: list[bool] = []

    def forward(self, rows: Sequence[Row], drafts: Drafts, *, last: bool = False) -> Forward:
        """The outputs after the committed tokens and after each further token of the drafts.

        What the session holds already is not computed again.

        Args:
            rows: the rows of the batch.
            drafts: hypothetical tokens of each row; may be ragged or empty.
            last: give only the output after the whole draft: [B, 1, V] instead of [B, K + 1, V].

        Returns:
            K is the longest draft; a shorter row's further columns repeat its last one.
        """
        if self._next is None:
            self.prefill(rows)
        kept = [
            _agreeing(old, new, len(new) - 1) if last else 0
            for old, new in zip(self._tentative, drafts, strict=True)
        ]
        self._take_back(kept)
        held = zip(rows, self._known, self.session.lengths, strict=True)
        pending = [[] if known else row.since(length, self._name) for row, known, length in held]
        blocks = [[*head, *draft[keep:]] for head, draft, keep in zip(pending, drafts, kept, strict=True)]
        output = self._feed(blocks)
        self._tentative = [list(draft) for draft in drafts]
        if not all(self._known):
            memo = self._columns(output, [[len(head)] for head in pending])
        ends = [len(block) for block in blocks]
        longest = 0 if last else max(len(draft) for draft in drafts)
        spans = [
            [end] if last else [min(len(head) + by, end) for by in range(longest + 1)]
            for head, end in zip(pending, ends, strict=True)
        ]
        wanted = self._columns(output, spans)
        if not all(self._known):
            self._next, self._known = memo, [True] * len(rows)
        return wanted

    def prefill(self, rows: Sequence[Row]) -> None:
        """Feed the committed tokens of every row into the empty session."""
        if self.session.width:
            held = self.session.lengths
            blocks = [row.since(length, self._name) for row, length in zip(rows, held, strict=True)]
            ends = torch.tensor([[len(block)] for block in blocks], device=self.session.device)
            output = self._feed(blocks)
            assert output is not None  # there is a new token in every row
            self._next = output.at(ends - 1)
        else:
            blocks = [row.since(0, self._name) for row in rows]
            width = max(len(block) for block in blocks)
            tokens = torch.tensor([[0] * (width - len(block)) + block for block in blocks])
            counts = [len(block) for block in blocks]
            self._next = self.session.feed(tokens, counts, keep=1, **self._asked)
        self._known = [True] * len(rows)
        self._tentative = [[] for _ in rows]

    def _feed(self, blocks: list[list[int]]) -> Forward | None:
        width = max(len(block) for block in blocks)
        if width == 0:
            return None
        tokens = torch.tensor([block + [0] * (width - len(block)) for block in blocks])
        return self.session.feed(tokens, [len(block) for block in blocks], **self._asked)

    def _columns(self, output: Forward | None, columns: list[list[int]]) -> Forward:
        """Pick columns of each row, counted from 1; column 0 is what is known after the committed tokens."""
        if output is not None and all(
            column == [*range(1, output.logits.shape[1] + 1)] for column in columns
        ):
            return output
        index = torch.tensor(columns, device=self.session.device)
        if output is None:
            assert self._next is not None  # a row without anything to feed is a known one
            return self._next.at(index)
        if all(map(all, columns)):
            return output.at(index - 1)
        assert self._next is not None  # the same
        return Forward.join(self._next, output).at(index)

    def _take_back(self, kept: Sequence[int]) -> None:
        self.session.rollback([len(old) - keep for old, keep in zip(self._tentative, kept, strict=True)])

    def committed(self, blocks: Drafts) -> None:
        """The blocks were committed: keep what agrees with them, take back the rest.

        The last committed token always stays to be fed, because the next output comes from it.
        """
        if self._next is None:
            return
        self._take_back(
            [_agreeing(old, new, len(new) - 1) for old, new in zip(self._tentative, blocks, strict=True)]
        )
        self.session.settle()
        self._tentative = [[] for _ in blocks]
        self._known = [known and not block for known, block in zip(self._known, blocks, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        """Keep the given rows, in that order, duplicates allowed."""
        if self._next is None:
            return
        self.session.select(rows)
        self._tentative = [list(self._tentative[row]) for row in rows]
        self._known = [self._known[row] for row in rows]
        self._next = self._next.select(torch.tensor(list(rows), device=self.session.device))


def _agreeing(old: Sequence[int], new: Sequence[int], most: int) -> int:
    """The length of the common prefix, at most ``most`` and at least 0."""
    count = 0
    while count < min(len(old), len(new), most) and old[count] == new[count]:
        count += 1
    return count

"""Keeps a session in step with the committed tokens, so that a strategy never rolls back by hand."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from decodekit.chain import wide
from decodekit.distribution import Drafts
from decodekit.errors import PluginError
from decodekit.forward import Forward
from decodekit.model_inputs import ModelInputs
from decodekit.row import TARGET, Row
from decodekit.session import Session

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Branch", "OwnSession", "Sessions", "TrackedSession"]


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
        self._given: Forward | None = None  # after the committed tokens, of the rows that are known
        self._order: list[int] | None = None  # where in it each row stands; None: in their order
        self._known: list[bool] = []
        self._coming: Tensor | None = None  # int64 [B, 1], when that is what each row is to be fed
        self._begun = False  # whether what is committed next was fed already

    @property
    def is_fed(self) -> bool:
        """Whether the prompts have been fed."""
        return self._given is not None

    @property
    def any_order(self) -> bool:
        """Whether the rows may be fed in another order: nothing was, and the model is given tokens alone."""
        return self.session.width == 0 and self.session.inputs.is_empty

    @property
    def _next(self) -> Forward:
        """The output after the committed tokens; rows that moved are copied here, as mostly nobody asks."""
        assert self._given is not None
        if self._order is not None:
            index = torch.tensor(self._order, device=self.session.device)
            self._given, self._order = self._given.select(index), None
        return self._given

    @_next.setter
    def _next(self, output: Forward) -> None:
        self._given, self._order = output, None

    def forward(self, rows: Sequence[Row], drafts: Drafts | None, *, last: bool = False) -> Forward:
        """The outputs after the committed tokens and after each further token of the drafts.

        What the session holds already is not computed again.

        Args:
            rows: the rows of the batch.
            drafts: hypothetical tokens of each row; may be ragged or empty, or None for none.
            last: give only the output after the whole draft: [B, 1, V] instead of [B, K + 1, V].

        Returns:
            K is the longest draft; a shorter row's further columns repeat its last one.
        """
        if self._given is None:
            self.prefill(rows)
        if not any(self._tentative) and (drafts is None or not any(drafts)):
            if all(self._known):
                return self._next
            if not any(self._known):
                return self._one_more(rows)
        drafts = drafts if drafts is not None else [()] * len(rows)
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

    def _one_more(self, rows: Sequence[Row]) -> Forward:
        """The plain step: every row has committed something, and nothing is drafted."""
        if self._coming is not None:
            output, self._coming = self.session.feed(self._coming, None, **self._asked), None
        else:
            held = self.session.lengths
            blocks = [row.since(length, self._name) for row, length in zip(rows, held, strict=True)]
            output = self._columns(self._feed(blocks), [[len(block)] for block in blocks])
        self._next, self._known = output, [True] * len(rows)
        return output

    def begin(self, tokens: Tensor) -> None:
        """Feed the token int64 [B] that every row is about to commit, if all before it was fed."""
        if self._given is None or any(self._tentative) or not all(self._known):
            return
        self.session.settle()
        self._next = self.session.feed(tokens[:, None], None, **self._asked)
        self._begun = True

    def forward_own(self, sequences: Drafts) -> Forward:
        """The output after tokens that are not the rows', which an `OwnSession` gives."""
        message = f"the session {self._name!r} is fed the rows' tokens: name its model in foreign_models"
        raise PluginError(message)

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
            return self._next.at(index)  # a row without anything to feed is a known one
        if all(map(all, columns)):
            return output.at(index - 1)
        return Forward.join(self._next, output).at(index)

    def _take_back(self, kept: Sequence[int]) -> None:
        self.session.rollback([len(old) - keep for old, keep in zip(self._tentative, kept, strict=True)])

    def committed(self, blocks: Drafts, tokens: Tensor | None = None) -> None:
        """The blocks were committed: keep what agrees with them, take back the rest.

        The last committed token always stays to be fed, because the next output comes from it.

        Args:
            blocks: the new tokens of each row; may be ragged or empty.
            tokens: int64 [B], the same where every block is one token and they stand on the device already.
        """
        if self._given is None:
            return
        if self._begun:
            self._begun = False
            self.session.settle()
            return
        if any(self._tentative):
            kept = [
                _agreeing(old, new, len(new) - 1) for old, new in zip(self._tentative, blocks, strict=True)
            ]
            self._take_back(kept)
            self._tentative = [[] for _ in blocks]
        self.session.settle()
        self._coming = tokens[:, None] if tokens is not None and all(self._known) else None
        self._known = [known and not block for known, block in zip(self._known, blocks, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        """Keep the given rows, in that order, duplicates allowed."""
        if self._given is None:
            return
        self.session.select(rows)
        self._tentative = [list(self._tentative[row]) for row in rows]
        self._known = [self._known[row] for row in rows]
        if self._coming is not None:
            self._coming = self._coming[torch.tensor(list(rows), device=self.session.device)]
        if any(self._known):  # otherwise nobody asks for them, so that they need not be right
            self._order = [self._order[row] for row in rows] if self._order is not None else list(rows)

    def join(self, other: "TrackedSession") -> None:
        """Take the rows of another session of the same model in below; it is not used any more.

        Every row of both has committed tokens that were not fed yet, so that nothing is known, and nothing
        hypothetical is held.
        """
        assert not any([*self._known, *other._known, *self._tentative, *other._tentative])
        self.session.join(other.session)
        self._known += other._known
        self._tentative += other._tentative
        self._coming = self._order = None


class OwnSession(TrackedSession):
    """A session whose rows hold tokens of their own, e.g. those of another tokenizer."""

    def __init__(self, model: "PreTrainedModel") -> None:
        """Open the session; nothing is fed yet."""
        super().__init__(Session(model))
        self._model = model
        self._held: list[list[int]] = []
        self._least: list[int] = []  # of each row what a sliding window can't take back

    def forward_own(self, sequences: Drafts) -> Forward:
        """The output after the whole sequence of each row, [B, 1, V]; only what is new is fed."""
        wanted = [list(sequence) for sequence in sequences]
        kept = [_agreeing(old, new, len(new) - 1) for old, new in zip(self._held, wanted, strict=False)]
        lost = any(keep < least for keep, least in zip(kept, self._least, strict=True))
        if not self._held or lost:
            return self._restart(wanted)
        self.session.rollback([len(old) - keep for old, keep in zip(self._held, kept, strict=True)])
        blocks = [new[keep:] for new, keep in zip(wanted, kept, strict=True)]
        width = max(map(len, blocks))
        tokens = torch.tensor([block + [0] * (width - len(block)) for block in blocks])
        output = self.session.feed(tokens, [len(block) for block in blocks])
        self._held = wanted
        ends = torch.tensor([[len(block) - 1] for block in blocks], device=self.session.device)
        return output.at(ends)

    def _restart(self, sequences: list[list[int]]) -> Forward:
        fresh = Session(self._model)
        fresh.forward_passes, fresh.tokens_fed = self.session.forward_passes, self.session.tokens_fed
        self.session = fresh
        width = max(map(len, sequences))
        tokens = torch.tensor([[0] * (width - len(sequence)) + sequence for sequence in sequences])
        self._held = sequences
        self._least = [len(sequence) if any(fresh.windows) else 0 for sequence in sequences]
        return fresh.feed(tokens, [len(sequence) for sequence in sequences], keep=1)

    def committed(self, blocks: Drafts, tokens: Tensor | None = None) -> None:
        """Nothing: what a row holds is said anew each time."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep the given rows, in that order, duplicates allowed."""
        if self._held:
            self.session.select(rows)
            self._held = [self._held[row] for row in rows]
            self._least = [self._least[row] for row in rows]


class Branch:
    """A session that goes on from where the target's first layers stand, and is then forgotten."""

    def __init__(self, rows: Sequence[Row], target: Session, model: "PreTrainedModel", layers: int) -> None:
        self._rows = rows
        self._target = target
        self._tracked = TrackedSession(target.branch(model, layers), TARGET)

    def logits(self, drafts: Drafts) -> Tensor:
        """Raw logits [B, V] after the whole draft of each row."""
        before = self._tracked.session.tokens_fed
        logits = self._tracked.forward(self._rows, drafts, last=True).logits[:, 0]
        self._target.tokens_fed += self._tracked.session.tokens_fed - before
        return wide(logits)


def _agreeing(old: Sequence[int], new: Sequence[int], most: int) -> int:
    """The length of the common prefix, at most ``most`` and at least 0."""
    count = 0
    while count < min(len(old), len(new), most) and old[count] == new[count]:
        count += 1
    return count


class Sessions(dict[str, TrackedSession]):
    """The sessions of a batch by name."""

    def __missing__(self, name: str) -> TrackedSession:
        """Refuse a name that nobody opened."""
        message = f"no session is called {name!r}: {', '.join(map(repr, self))} are open; see Batch.open"
        raise PluginError(message)

    def with_prompts(self, name: str, inputs: ModelInputs | None) -> list[str]:
        """The name of a new session if it is fed together with the prompts: if it is given ``inputs``.

        Raises:
            PluginError: the prompts were fed already, and their rows perhaps copied.
        """
        if inputs is not None and self[TARGET].is_fed:
            message = (
                f"the session {name!r} has inputs beside tokens, and the prompts have been fed: name "
                "its model in Strategy.models, which opens it before, or open it without inputs"
            )
            raise PluginError(message)
        return [name] if inputs is not None else []

"""Processed logits of a batch, of which only what is left of a row need be kept."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor

from decodekit.head import argmax
from decodekit.randomness import Field, race

__all__ = ["BLUR", "Memory", "Part", "Scores", "Unread"]

BLUR = 1e-5
"""Two ratios this near to each other may be in another order after other sums."""
_FEW = 1_024
"""Rows with at most so many tokens are filled up to the widest of them."""


@attrs.frozen(eq=False)
class Memory:
    """What a stateful processor keeps of one row at one position.

    Attributes:
        values: float [V], or [C] when the tokens ``ids``, int64 [C], are all that was left.
        ids: None when the values are those of all tokens.
    """

    values: Tensor
    ids: Tensor | None = None

    def at(self, token: int) -> tuple[int, Tensor]:
        """Where the token stands, and the values among which it does."""
        if self.ids is None:
            return token, self.values
        found = (self.ids == token).nonzero()
        if len(found):
            return int(found[0]), self.values
        return len(self.values), torch.nn.functional.pad(self.values, (0, 1), value=-torch.inf)


@attrs.frozen(eq=False)
class Part:
    """Some rows of a batch: their logits [b, V], or [b, C] of the tokens ``ids``, int64 [b, C].

    All tokens that the ids don't name are impossible; the id V names none.
    """

    rows: list[int]
    logits: Tensor
    ids: Tensor | None = None

    def places(self, tokens: Tensor) -> Tensor:
        """In which column the token of each row stands, int64 [b]; C where it is impossible."""
        if self.ids is None:
            return tokens
        same = self.ids == tokens[:, None]
        return torch.where(same.any(dim=-1), same.int().argmax(dim=-1), self.ids.shape[1])

    def tokens(self, columns: Tensor) -> Tensor:
        """The tokens in the columns, int64 [b]."""
        return columns if self.ids is None else self.ids.gather(1, columns[:, None])[:, 0]

    def argmax(self) -> Tensor:
        """The token of the largest logit of each row; ties go to the lowest id."""
        if self.ids is None:
            return argmax(self.logits)
        largest = self.logits == self.logits.amax(dim=-1, keepdim=True)
        return torch.where(largest, self.ids, torch.iinfo(torch.long).max).amin(dim=-1)

    def dense(self, vocab_size: int) -> Tensor:
        """The logits of the tokens in their places, [b, V]."""
        if self.ids is None:
            return self.logits
        wide = self.logits.new_full((len(self.rows), vocab_size + 1), -torch.inf)
        return wide.scatter_(1, self.ids, self.logits)[:, :vocab_size]

    def take(self, places: Sequence[int], rows: list[int]) -> "Part":
        """The rows at some places, under other numbers."""
        if list(places) == list(range(len(self.rows))):
            return Part(rows, self.logits, self.ids)
        return Part(rows, self.logits[places], None if self.ids is None else self.ids[places])


@attrs.frozen(eq=False, slots=False)
class Scores:
    """Processed logits of B rows, in parts that hold each row once.

    Attributes:
        parts: of the rows.
        vocab_size: V.
    """

    parts: Sequence[Part]
    vocab_size: int

    @classmethod
    def joined(cls, parts: Sequence[Part], vocab_size: int) -> "Scores":
        """The parts, of which those that hold few tokens become one, so that a draw is one race."""
        small = [part for part in parts if part.ids is not None and part.ids.shape[1] <= _FEW]
        if len(small) < 2:
            return cls(parts, vocab_size)
        width = max(part.logits.shape[1] for part in small)
        logits = torch.cat([_filled(part.logits, width, -torch.inf) for part in small])
        ids = torch.cat([_filled(part.ids, width, vocab_size) for part in small if part.ids is not None])
        rows = [row for part in small for row in part.rows]
        others = [part for part in parts if part.ids is None or part.ids.shape[1] > _FEW]
        return cls([Part(rows, logits, ids), *others], vocab_size)

    @classmethod
    def of(cls, logits: Tensor) -> "Scores":
        """All of the logits [B, V]."""
        return cls([Part(list(range(len(logits))), logits)], logits.shape[-1])

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.parts[0].logits.device

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self.parts)

    @cached_property
    def dense(self) -> Tensor:
        """The scores in the places of their tokens, [B, V]; -inf is an impossible token."""
        return self._together([part.dense(self.vocab_size) for part in self.parts])

    def _together(self, values: list[Tensor]) -> Tensor:
        """What each part says of its rows, in the order of the rows."""
        if len(self.parts) == 1 and self.parts[0].rows == list(range(len(self))):
            return values[0]
        whole = torch.cat(values)
        order = torch.tensor([row for part in self.parts for row in part.rows], device=whole.device)
        return torch.empty_like(whole).index_copy_(0, order, whole)

    @cached_property
    def _home(self) -> dict[int, tuple[Part, int]]:
        """For each row its part and the place in it."""
        return {row: (part, place) for part in self.parts for place, row in enumerate(part.rows)}

    def peaks(self) -> Tensor:
        """The largest score of each row, [B]."""
        return self._together([part.logits.amax(dim=-1) for part in self.parts])

    def argmax(self) -> Tensor:
        """The most probable token of each row, int64 [B]; ties go to the lowest id."""
        return self._together([part.argmax() for part in self.parts])

    def draw(self, field: Field) -> Tensor:
        """A token for each row, int64 [B], by a race against the noise; see `decodekit.randomness.race`."""
        whole_first = sorted(self.parts, key=lambda part: part.ids is not None)  # as `Field.dense` wants it
        tokens = {id(part): self._race(part, field) for part in whole_first}
        return self._together([tokens[id(part)] for part in self.parts])

    def _race(self, part: Part, field: Field) -> Tensor:
        if part.ids is None:
            return race(part.logits, field.dense(part.rows))
        p, noise = part.logits.softmax(dim=-1), field.at(part.rows, part.ids)
        first = (p / noise).topk(min(2, p.shape[-1]), dim=-1).values
        if bool((first[:, -1] >= first[:, 0] * (1 - BLUR)).any()) and p.shape[-1] > 1:
            # The last bit of a sum over V numbers may decide: take it over V numbers, as transformers does.
            wide = torch.nn.functional.pad(part.dense(self.vocab_size).softmax(dim=-1), (0, 1))
            p = wide.gather(1, part.ids)
        return part.tokens(race(part.logits, noise, p))

    def check(self) -> None:
        """Raise what is wrong with the logits, where it is not known yet; here it is."""

    def row(self, row: int) -> Tensor:
        """The scores of one row in the places of their tokens, [V]."""
        part, place = self._home[row]
        return part.take([place], [0]).dense(self.vocab_size)[0]

    def logprobs(self, rows: Sequence[int], tokens: Sequence[int]) -> Iterator[float]:
        """The log-probability of a token of each of the rows, a row at most once."""
        wanted = dict(zip(rows, tokens, strict=True))
        found: dict[int, float] = {}
        for part in self.parts:
            places = [place for place, row in enumerate(part.rows) if row in wanted]
            if not places:
                continue
            mine = part.take(places, [part.rows[place] for place in places])
            named = torch.tensor([wanted[row] for row in mine.rows], device=mine.logits.device)
            logits = mine.logits
            if mine.ids is not None:  # one more column, for a token that is impossible
                logits = torch.nn.functional.pad(logits, (0, 1), value=-torch.inf)
            picked = logits.gather(1, mine.places(named)[:, None])[:, 0] - mine.logits.logsumexp(dim=-1)
            found |= zip(mine.rows, picked.tolist(), strict=True)
        return iter([found[row] for row in rows])

    def select(self, rows: Sequence[int]) -> "Scores":
        """The given rows, in that order; a row may be named more than once."""
        members: dict[int, tuple[Part, list[int], list[int]]] = {}
        for number, row in enumerate(rows):
            part, place = self._home[row]
            _, places, numbers = members.setdefault(id(part), (part, [], []))
            places.append(place)
            numbers.append(number)
        return Scores(
            [part.take(places, numbers) for part, places, numbers in members.values()], self.vocab_size
        )

    def renamed(self, rows: Sequence[int]) -> list[Part]:
        """The parts, with row ``i`` under the number ``rows[i]``."""
        return [Part([rows[row] for row in part.rows], part.logits, part.ids) for part in self.parts]


@attrs.frozen(eq=False, slots=False)
class Unread(Scores):
    """Scores that an accelerator is still at work on: to look for what is wrong is to wait for it."""

    _check: Callable[[], None]

    def check(self) -> None:
        """Wait, and raise what is wrong."""
        self._check()


def _filled(values: Tensor, width: int, value: float) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[1]), value=value)

"""The short way through chains of truncations: no look at what a draw does not depend on.

Each truncation says where it cuts and of which rows it is sure, and nobody waits for the answer: the draw
itself tells at its end, in one read, which rows were unsure, not finite, or too near to another token. Those
are processed with care. Rows whose chains differ in the values of parameters alone go through one chain
that holds a value for each.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from decodekit.chain import Chain, wide
from decodekit.flow import applied, attempt, cuts
from decodekit.head import Head
from decodekit.history import History, no_history
from decodekit.processor import Processor
from decodekit.randomness import Field
from decodekit.row import Row, row_index
from decodekit.scores import BLUR, Part, Scores

__all__ = ["Glimpse", "glimpse", "side_by_side"]


class Glimpse(Scores):
    """Scores of which no more is computed than somebody looks at."""

    def __init__(self, head: Head, sure: Tensor | None, careful: Callable[[list[int]], Scores]) -> None:
        """Take what is left of B rows.

        Args:
            head: the tokens that stay; all others are impossible.
            sure: bool [B], of which rows that is certain; None for all.
            careful: gives the scores of the rows that it is called with.
        """
        object.__setattr__(self, "vocab_size", head.vocab_size)  # as attrs does for a frozen class
        self.__dict__.update(_head=head, _sure=sure, _careful=careful, _drawn=False)

    _head: Head
    _sure: Tensor | None
    _careful: Callable[[list[int]], Scores]
    _drawn: bool

    @cached_property
    def parts(self) -> Sequence[Part]:  # computed at the first look
        """The rows, processed with care where that is needed."""
        finite = self._head.logits[:, 0].isfinite()
        fine = (finite if self._sure is None else finite & self._sure).tolist()
        good = [row for row, sure in enumerate(fine) if sure]
        rest = [row for row, sure in enumerate(fine) if not sure]
        part = Part([*range(len(fine))], self._head.logits, self._head.ids)
        if not rest:
            return [part]
        return [*([part.take(good, good)] if good else []), *self._careful(rest).renamed(rest)]

    def __len__(self) -> int:
        return len(self._head.ids)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._head.ids.device

    def check(self) -> None:
        """Process what needs care, if nobody has looked; a draw has, so that this costs it nothing.

        Raises:
            NonFiniteLogitsError, EmptySupportError: as `decodekit.distribution.process` does.
        """
        if not self._drawn:
            _ = self.parts

    def draw(self, field: Field) -> Tensor:
        """A token for each row, int64 [B]; see `Scores.draw`."""
        if "parts" in self.__dict__:
            return super().draw(field)
        head = self._head
        p = head.logits.softmax(dim=-1)
        ratio, place = (p / field.at(range(len(self)), head.ids)).topk(min(2, p.shape[-1]), dim=-1)
        # False as well where something is NaN, or no number.
        sure = ratio[:, -1] < ratio[:, 0] * (1 - BLUR) if p.shape[-1] > 1 else ratio[:, 0].isfinite()
        sure = sure if self._sure is None else sure & self._sure
        if bool(sure.all()):
            self.__dict__["_drawn"] = True
            return head.ids.gather(1, place[:, :1])[:, 0]
        return super().draw(field)


def glimpse(
    chains: Sequence[Chain],
    numbers: Sequence[int],
    logits: Tensor,
    history: Callable[[], History],
    careful: Callable[[list[int]], Scores],
    least: int = 1,
) -> Glimpse | None:
    """The scores of rows on the short way; None when the chain of one has none.

    Args:
        chains: of the call.
        numbers: which of them is each row's, B of them.
        logits: [B, V].
        history: gives the tokens of the rows; asked for where a processor may look at them.
        careful: see `Glimpse`.
        least: how many of the largest logits are looked at, if a chain does not ask for more.
    """
    in_use = set(numbers)
    if any(chains[number].opening is None for number in in_use):
        return None
    logits = wide(logits)
    groups = _groups(chains, numbers) if len(in_use) > 1 else [[*range(len(numbers))]]
    if len(groups) == 1:
        return Glimpse(*_run(chains, numbers, logits, history, least), careful)
    reaches = [chains[number].reach for number in in_use if chains[number].opening == 0]
    shared = sum(chains[numbers[members[0]]].opening == 0 for members in groups) > 1
    found = Head.of(logits, max(least, *reaches)) if shared else None  # one search for several groups
    heads, surely = [], []
    for members in groups:
        own = [numbers[row] for row in members]
        which = row_index(members, logits.device)
        start = found.select(which) if found is not None and chains[own[0]].opening == 0 else logits[which]
        head, sure = _run(chains, own, start, functools.partial(_some, history, members), least)
        heads.append(head)
        surely.append(sure if sure is not None else logits.new_ones(len(members), dtype=torch.bool))
    return Glimpse(*_in_order(groups, Head.together(heads), torch.cat(surely)), careful)


def side_by_side(chains: Sequence[Chain], rows: Sequence[Row]) -> list[int]:
    """The rows in an order in which those that go through one chain need not be copied to stand together."""
    return [row for members in _groups(chains, [row.chain for row in rows]) for row in members]


def _some(history: Callable[[], History], rows: list[int]) -> History:
    return history().select(rows)


def _in_order(groups: Sequence[Sequence[int]], head: Head, sure: Tensor) -> tuple[Head, Tensor]:
    """Rows that stand group by group, in their order."""
    rows = [row for members in groups for row in members]
    if rows == [*range(len(rows))]:
        return head, sure
    order = torch.tensor(rows, device=sure.device).argsort()
    return head.select(order), sure[order]


def _groups(chains: Sequence[Chain], numbers: Sequence[int]) -> list[list[int]]:
    """The rows that go through one chain, each with its own values."""
    groups: dict[object, list[int]] = {}
    for row, number in enumerate(numbers):
        groups.setdefault(chains[number].shape, []).append(row)
    return list(groups.values())


def _run(
    chains: Sequence[Chain],
    numbers: Sequence[int],
    start: Tensor | Head,
    history: Callable[[], History],
    least: int,
) -> tuple[Head, Tensor | None]:
    """The head that chains of one shape leave of each row, if all are sure, and of which rows they are."""
    in_use = {number: chains[number] for number in numbers}
    opening = chains[numbers[0]].opening
    assert opening is not None  # asked before
    processors = chains[numbers[0]].active
    if len(in_use) > 1:
        every = zip(*(chains[number].active for number in numbers), strict=True)
        processors = [_stack(items, start.logits if isinstance(start, Head) else start) for items in every]
    for processor in processors[:opening]:
        assert isinstance(start, Tensor)  # a head is for chains that open with it
        start = applied(processor, start, history())
    if not isinstance(start, Head):
        start = Head.of(start, max(least, *(chain.reaches[opening] for chain in in_use.values())))
    head, sure, nothing = start, None, no_history(len(numbers), start.ids.device)
    for processor in processors[opening:]:
        if not cuts(processor):
            head = head.to(
                applied(processor, head.logits, nothing), functools.partial(_all, processor, nothing)
            )
            continue
        cut = attempt(processor, processor.cut, head)
        if cut is None:
            return head, torch.zeros(len(numbers), dtype=torch.bool, device=head.ids.device)
        head = head.kept(cut.floor)
        if cut.clear is not None:
            sure = cut.clear if sure is None else sure & cut.clear
    return head, sure


def _all(processor: Processor, history: History, whole: Tensor) -> Tensor:
    return applied(processor, whole, history)


def _stack(items: Sequence[Processor], logits: Tensor) -> Processor:
    """One processor for rows, whose parameters are tensors [B, 1] where they differ."""
    first = items[0]
    stacked = copy.copy(first)
    for name in type(first).BY_ROW:
        values = [getattr(item, name) for item in items]
        if any(value != values[0] for value in values):
            kind = logits.dtype if isinstance(values[0], float) else torch.long
            tensor = torch.tensor(values, dtype=kind, device=logits.device)[:, None]
            object.__setattr__(stacked, name, tensor)  # frozen for everybody else
    return stacked

"""Chains over a small vocabulary: there, every operation costs the same whatever it computes.

So the chain is applied as it is defined, to all tokens, with nothing around it: as with `decodekit.glimpse`,
what is wrong with the result is found by the draw itself.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from decodekit.chain import Chain, wide
from decodekit.finite import all_finite, check_raw
from decodekit.flow import applied
from decodekit.history import History, no_history
from decodekit.randomness import Field
from decodekit.row import Row
from decodekit.scores import Part, Scores

__all__ = ["Small", "small"]

MOST = 1 << 12
"""So many numbers take less time than the operations of a shorter way."""


class Small(Scores):
    """Scores that nobody has looked at yet, so that something may be wrong with them."""

    def __init__(self, logits: Tensor, careful: Callable[[], Scores]) -> None:
        """Take processed logits [B, V], and what processes them again with all checks."""
        object.__setattr__(self, "vocab_size", logits.shape[-1])  # as attrs does for a frozen class
        self.__dict__.update(_logits=logits, _careful=careful, _checked=False)

    _logits: Tensor
    _careful: Callable[[], Scores]
    _checked: bool

    @cached_property
    def parts(self) -> Sequence[Part]:  # checked at the first look
        """The rows."""
        self.check()
        return [Part([*range(len(self))], self._logits)]

    def __len__(self) -> int:
        return len(self._logits)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._logits.device

    def check(self) -> None:
        """Look for what is wrong, unless a draw has.

        Raises:
            NonFiniteLogitsError, EmptySupportError: as `decodekit.distribution.process` does.
        """
        if not self._checked and not all_finite(self._logits.amax(dim=-1)):
            self._careful()
        self.__dict__["_checked"] = True

    def draw(self, field: Field) -> Tensor:
        """A token for each row, int64 [B]; see `Scores.draw`."""
        best, token = (self._logits.softmax(dim=-1) / field.dense().to(self.device)).max(dim=-1)
        if not all_finite(best):
            return self._careful().draw(field)
        self.__dict__["_checked"] = True
        return token


def small(
    chains: Sequence[Chain],
    rows: Sequence[Row],
    history: Callable[[], History],
    logits: Tensor,
    careful: Callable[[], Scores],
) -> Small | None:
    """The scores of rows with one chain without a state; None where there are too many tokens for this way.

    Args:
        chains: of the call.
        rows: the B rows.
        history: gives their tokens; asked for where a processor may look at them.
        logits: [B, V].
        careful: processes them with all checks.

    Raises:
        NonFiniteLogitsError: as `decodekit.distribution.process` does.
    """
    if logits.numel() > MOST or len({row.chain for row in rows}) > 1:
        return None
    chain = chains[rows[0].chain]
    if chain.opening is None or not chain.active:
        return None
    if chain.opening:  # what stands before may hide what is wrong
        check_raw(chains, rows, logits)
    seen = history() if chain.opening else no_history(len(rows), logits.device)
    scores = wide(logits)
    for processor in chain.active:
        scores = applied(processor, scores, seen)
    return Small(scores, careful)

"""The next pass of an accelerator, begun before the tokens of this one are read: stops are checked late.

To read a token is to wait until the accelerator has chosen it, and meanwhile it gets nothing more to do. So
the tokens set out for the host, the pass over them is queued behind them, and only then are they read. Rows
that turn out to have ended are dropped; if all have, the pass was in vain.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from decodekit.distribution import Distribution
from decodekit.row import Row
from decodekit.stopping import StopRules
from decodekit.tracking import TrackedSession

__all__ = ["OnItsWay", "begun"]


class OnItsWay:
    """A tensor that is being copied to the host; work that is queued after it does not hold it up."""

    def __init__(self, values: Tensor) -> None:
        """Begin the copy of ``values``."""
        self._event: Any = None
        self._values = values
        if values.device.type != "cpu":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.Event(device=values.device)
            self._event.record()

    def tolist(self) -> list[Any]:
        """Wait for it, and for nothing behind it."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


def begun(
    tokens: Any, dist: Distribution, rows: Sequence[Row], stops: StopRules, target: TrackedSession
) -> Any:
    """Begin the pass over tokens that are about to be committed, if there is to be one.

    Args:
        tokens: what `Batch.commit` was given.
        dist: the distribution that they are from.
        rows: the B rows.
        stops: when they end.
        target: the model's session.

    Returns:
        What to read the tokens from.
    """
    plain = isinstance(tokens, Tensor) and tokens.dtype == torch.long and tokens.shape == (len(rows),)
    if not plain or all(len(row.tokens) + 1 >= stops.max_new_tokens for row in rows):
        return tokens
    copy = OnItsWay(tokens)
    target.begin(tokens.clamp(0, dist.logits.shape[-1] - 1))  # what is no token is refused when it is read
    return copy

"""The decoding loop, on one screen."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from decodekit.batch import Batch
    from decodekit.strategy import Strategy

__all__ = ["decode"]


def decode(batch: "Batch", strategy: "Strategy", *, synced: bool = False) -> Iterator[None]:
    """Decode until no row lives; yields after the prompts were fed, and after every step.

    At each of these points all that was committed is final.

    Gradients are off while this function runs and as the caller had them in between.

    Args:
        batch: the rows.
        strategy: what to do with them.
        synced: other processes share the model's weights: run the model until no row lives anywhere.
    """
    with torch.no_grad():
        batch.prefill()
        strategy.start(batch)
    yield
    while batch.rows:
        _others_live(batch, synced)
        with torch.no_grad():
            strategy.step(batch)
            batch.settle()
        yield
    while _others_live(batch, synced):
        with torch.no_grad():
            batch.idle()
    with torch.no_grad():
        strategy.finish(batch)


def _others_live(batch: "Batch", synced: bool) -> bool:
    """Tell the other processes whether a row lives here, and learn whether one lives anywhere."""
    if not synced:
        return False
    live = torch.tensor(float(bool(batch.rows)), device=batch.target.device)
    torch.distributed.all_reduce(live, op=torch.distributed.ReduceOp.SUM)
    return bool(live > 0)

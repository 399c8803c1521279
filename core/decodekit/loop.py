"""The decoding loop, on one screen."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from decodekit.batch import Batch
    from decodekit.strategy import Strategy

__all__ = ["anywhere", "decode"]


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
    device = batch.target.device
    while batch.rows:
        if synced:
            anywhere(True, device)
        with torch.no_grad():
            strategy.step(batch)
            batch.settle()
        yield
    while synced and anywhere(False, device):
        with torch.no_grad():
            batch.idle()
    with torch.no_grad():
        strategy.finish(batch)


def anywhere(here: bool, device: torch.device) -> bool:
    """Whether it is so in any process; every process must ask."""
    count = torch.tensor(float(here), device=device)
    torch.distributed.all_reduce(count, op=torch.distributed.ReduceOp.SUM)
    return bool(count > 0)

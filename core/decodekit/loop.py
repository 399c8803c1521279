"""The decoding loop, on one screen."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from decodekit.batch import Batch
    from decodekit.strategy import Strategy

__all__ = ["anywhere", "decode"]


def decode(
    batch: "Batch",
    strategy: "Strategy",
    *,
    synced: bool = False,
    mode: Callable[[], AbstractContextManager[object]] = torch.no_grad,
) -> Iterator[None]:
    """Decode until no row lives; yields after the prompts were fed, and after every step.

    At each of these points all that was committed is final.

    Gradients are off while this function runs and as the caller had them in between.

    Args:
        batch: the rows.
        strategy: what to do with them.
        synced: other processes share the model's weights: run the model until no row lives anywhere.
        mode: what the steps run in; the prompts are fed without gradients, so that what modules make at
            their first pass is ordinary.
    """
    with torch.no_grad():
        batch.prefill()
        strategy.start(batch)
    yield
    device, steps = batch.target.device, mode()
    while batch.rows:
        if synced:
            anywhere(True, device)
        with steps:
            strategy.step(batch)
            batch.settle()
        yield
    while synced and anywhere(False, device):
        with torch.no_grad():
            batch.idle()
    with steps:
        strategy.finish(batch)


def anywhere(here: bool, device: torch.device) -> bool:
    """Whether it is so in any process; every process must ask."""
    count = torch.tensor(float(here), device=device)
    torch.distributed.all_reduce(count, op=torch.distributed.ReduceOp.SUM)
    return bool(count > 0)

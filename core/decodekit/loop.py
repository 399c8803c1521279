"""The decoding loop, on one screen."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from decodekit.batch import Batch
    from decodekit.strategy import Strategy

__all__ = ["decode"]


def decode(batch: "Batch", strategy: "Strategy") -> Iterator[None]:
    """Decode until no row lives; yields after the prompts were fed, and after every step.

    At each of these points all that was committed is final.

    Gradients are off while this function runs and as the caller had them in between.
    """
    with torch.no_grad():
        batch.prefill()
        strategy.start(batch)
    yield
    while batch.rows:
        with torch.no_grad():
            strategy.step(batch)
            batch.settle()
        yield
    with torch.no_grad():
        strategy.finish(batch)

"""The decoding loop, on one screen."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from decodekit.inference import wash

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from decodekit.batch import Batch
    from decodekit.strategy import Strategy

__all__ = ["anywhere", "decode"]


def decode(
    batch: "Batch",
    strategy: "Strategy",
    *,
    synced: bool = False,
    inferring: "Sequence[PreTrainedModel]" = (),
) -> Iterator[None]:
    """Decode until no row lives; yields after the prompts were fed, and after every step.

    At each of these points all that was committed is final.

    Gradients are off while this function runs and as the caller had them in between.

    Args:
        batch: the rows.
        strategy: what to do with them.
        synced: other processes share the model's weights: run the model until no row lives anywhere.
        inferring: the models of a call whose steps run in inference mode; the prompts never do, so that
            what modules make at their first pass is ordinary.
    """
    device, mode = batch.target.device, torch.inference_mode() if inferring else torch.no_grad()
    try:
        with torch.no_grad():
            batch.prefill()
            strategy.start(batch)
        yield
        while batch.rows:
            if synced:
                anywhere(True, device)
            with mode:
                strategy.step(batch)
                batch.settle()
            yield
        while synced and anywhere(False, device):
            with torch.no_grad():
                batch.idle()
        with mode:
            strategy.finish(batch)
    except Exception as error:
        error.add_note(f"raised under the strategy {strategy.NAME!r}")
        raise
    finally:
        wash(inferring)


def anywhere(here: bool, device: torch.device) -> bool:
    """Whether it is so in any process; every process must ask."""
    count = torch.tensor(float(here), device=device)
    torch.distributed.all_reduce(count, op=torch.distributed.ReduceOp.SUM)
    return bool(count > 0)

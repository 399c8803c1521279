"""The rows of ``make bench`` for overhead: what a call takes beyond bare passes of the model.

A model of two tiny layers; each run is one call, or where transformers takes one prompt at a time, one for
each prompt. The seconds are those of the calls, less those of bare ``model(...)`` passes of the same shapes
under `torch.no_grad`. They can be negative: passes in inference mode take less. A difference of two such
times is small and varies, so that these rows get more runs than others.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import decodekit as dk
import torch
from decodekit.testing.models import tiny_llama
from transformers import DynamicCache

from tests.bench.rows import Row, Seconds

__all__ = ["overhead_rows"]

Run = Callable[[], Any]
VOCAB, PROMPT, NEW_TOKENS = 256, 8, 64
CALLS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sample": {"do_sample": True, "temperature": 0.8, "top_k": 50},
    "beam 4": {"num_beams": 4},
    "prompt lookup": {"prompt_lookup_num_tokens": 4},
}


def overhead_rows() -> dict[str, Row]:
    """The rows by name; what is added is to be at most a third of what transformers adds."""
    model = tiny_llama(VOCAB, dtype=torch.float32)
    rows = {}
    for name, more in CALLS.items():
        for batch in (1, 8):
            ids = torch.randint(3, VOCAB, (batch, PROMPT), generator=torch.Generator().manual_seed(batch))
            pieces = ids.split(1) if "prompt_lookup_num_tokens" in more else [ids]
            theirs = functools.partial(_calls, model.generate, pieces, more)
            ours = functools.partial(_calls, functools.partial(dk.generate, model), [ids], more)
            both = (_beyond_passes(model, run) for run in (theirs, ours))
            rows[f"overhead {name}, batch {batch}"] = Row("transformers", *both, target=3, times=5)
    return rows


def _calls(generate: Callable[..., Any], prompts: Any, more: dict[str, Any]) -> None:
    for ids in prompts:
        torch.manual_seed(0)
        generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            eos_token_id=None,
            pad_token_id=0,
            **more,
        )


def _beyond_passes(model: Any, run: Run) -> Run:
    """The run, which gives its seconds less those of bare passes of the same shapes, right after it."""
    shapes: list[tuple[int, int, bool]] = []

    def rehearse() -> None:
        plain = model.forward

        @functools.wraps(plain)
        def forward(*args: Any, **kwargs: Any) -> Any:
            first = kwargs["past_key_values"].get_seq_length() == 0
            shapes.append((*kwargs["input_ids"].shape, first))
            return plain(*args, **kwargs)

        model.forward = forward
        try:
            run()
        finally:
            del model.forward

    def bare() -> None:
        for rows, width, first in shapes:
            if first:
                cache, start, held = DynamicCache(config=model.config), 0, rows
            if rows > held:
                cache.batch_repeat_interleave(rows // held)
            elif rows < held:
                cache.batch_select_indices(torch.arange(rows))
            held = rows
            places = torch.arange(start, start + width).expand(rows, -1)
            tokens = torch.zeros(rows, width, dtype=torch.long)
            model(input_ids=tokens, position_ids=places, past_key_values=cache, use_cache=True)
            start += width

    def measured() -> Seconds:
        if not shapes:
            rehearse()
        start = time.perf_counter()
        run()
        middle = time.perf_counter()
        with torch.no_grad():
            bare()
        return Seconds(2 * middle - start - time.perf_counter())

    return measured

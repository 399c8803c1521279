"""The rows of ``make bench`` for decode speed behind a history of 256 to 16,384 tokens.

The history is a cache of random keys and values: no minutes go into a prompt, and what a step takes does not
depend on them. It is made anew for every run, and only the call is timed.
"""

import time
from typing import Any

import decodekit as dk
import torch
from transformers import DynamicCache

from tests.bench.models import loaded, read_bytes
from tests.bench.rows import Row, Seconds

__all__ = ["LENGTHS", "history_rows"]

LENGTHS = (256, 1_024, 4_096, 16_384)
NEW_TOKENS = 16


def _cache(model: Any, length: int) -> DynamicCache:
    config, cache = model.config, DynamicCache(config=model.config)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = (1, config.num_key_value_heads, length, width)
    for layer in range(config.num_hidden_layers):
        cache.update(torch.randn(shape, dtype=model.dtype), torch.randn(shape, dtype=model.dtype), layer)
    return cache


def _row(dtype: str, length: int, compiled: bool) -> Row:
    def run(ours: bool) -> Seconds:
        model, _ = loaded(dtype)
        ids = torch.randint(3, model.config.vocab_size, (1, length + 1))
        arguments = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "past_key_values": _cache(model, length),
            "max_new_tokens": NEW_TOKENS,
            "min_new_tokens": NEW_TOKENS,
            "do_sample": False,
        }
        start = time.perf_counter()
        if ours:
            dk.generate(model, **arguments, compile=compiled)
        else:
            model.generate(**arguments)
        return Seconds(time.perf_counter() - start)

    return Row(
        base=f"transformers {dtype}",
        theirs=lambda: run(False),
        ours=lambda: run(True),
        tokens=NEW_TOKENS,
        reads=lambda: read_bytes(dtype, "none", length + NEW_TOKENS / 2),
    )


def history_rows() -> dict[str, Row]:
    """The rows by name, eager and compiled."""
    return {
        f"history of {length:,} tokens, {way}, bfloat16": _row("bfloat16", length, way == "compiled")
        for way in ("eager", "compiled")
        for length in LENGTHS
    }

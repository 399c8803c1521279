"""Rows of ``make bench`` for compiled steps: ``compile=True`` against transformers' own loop.

The first run of each compiles kernels, where they are not on disk, and is not counted.
"""

import functools
from collections.abc import Callable
from typing import Any

import decodekit as dk
import torch

Run = Callable[[], Any]
STORY = "Once upon a time, in a small village by the sea, there lived"
COPY = "Repeat this list exactly: red, green, blue, white, black, yellow, orange, purple, brown, pink.\n" * 3


@functools.cache
def loaded(dtype: str, quant: str) -> Any:
    """A model and a tokenizer; an int8 or int4 model with its output layer."""
    spec = (quant, {"output_layer": True}) if quant in ("int8", "int4") else quant
    return dk.load(dtype=dtype, quant=spec)


def compiled_rows() -> dict[str, tuple[str, Run, Run]]:
    """For each row what the base is, the base, and ours; models are loaded when a row runs."""

    def row(
        base: str, ours: tuple[str, str], text: str = STORY, batch: int = 1, **call: Any
    ) -> tuple[str, Run, Run]:
        arguments = {"max_new_tokens": 64, "min_new_tokens": 64, "do_sample": False, **call}

        def run(compiled: bool) -> Any:
            model, tokenizer = loaded(*(ours if compiled else (base, "none")))
            encoded = tokenizer([text] * batch, return_tensors="pt")
            torch.manual_seed(0)
            if compiled:
                return dk.generate(model, **encoded, **arguments, compile=True)
            return model.generate(**encoded, **arguments)

        return f"transformers {base}", lambda: run(False), lambda: run(True)

    plain, half = ("float32", "none"), ("bfloat16", "none")
    lookup = {"prompt_lookup_num_tokens": 8, "max_new_tokens": 96, "min_new_tokens": 96}
    return {
        "compiled, float32, batch 1": row("float32", plain),
        "compiled, bfloat16, batch 1": row("bfloat16", half),
        "compiled, int8, batch 1": row("bfloat16", ("bfloat16", "int8")),
        "compiled, int4, batch 1": row("bfloat16", ("bfloat16", "int4")),
        "compiled, float32, batch 8": row("float32", plain, batch=8),
        "compiled, bfloat16, batch 8": row("bfloat16", half, batch=8),
        "compiled, bfloat16, beam 4": row("bfloat16", half, num_beams=4),
        "compiled, bfloat16, sampled": row("bfloat16", half, do_sample=True, temperature=0.8, top_p=0.95),
        "compiled, bfloat16, prompt lookup, copy task": row("bfloat16", half, COPY, **lookup),
    }

"""The rows of ``make bench`` for weights of each format, eager and compiled, against transformers.

The first run of a compiled row compiles kernels, where they are not on disk, and is not counted.
"""

import importlib.util
from typing import Any

import decodekit as dk
import torch

from tests.bench.models import COPY, STORY, briefly, loaded, read_bytes
from tests.bench.rows import Missing, Row

__all__ = ["format_rows"]

NEW_TOKENS = 64
LIBRARIES = {"bnb": "bitsandbytes", "torchao": "torchao"}
"""By the first word of a backend what it needs."""


def _installed(quant: str) -> None:
    library = LIBRARIES.get(quant.partition("-")[0])
    if library is not None and importlib.util.find_spec(library) is None:
        message = f"{library} is not installed: pip install -c constraints.txt {library}"
        raise Missing(message)


def _row(
    compiled: bool, base: str, ours: tuple[str, str], text: str = STORY, batch: int = 1, **call: Any
) -> Row:
    """Whole calls, prompt included; ``call`` is for both, but for ``target`` and ``slow``."""
    about = {key: call.pop(key) for key in ("target", "slow") if key in call}
    arguments = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, **call}
    drafts = "prompt_lookup_num_tokens" in call
    one = batch == 1 and "num_beams" not in call and not drafts

    def run(mine: bool, brief: dict[str, int]) -> Any:
        model, tokenizer = loaded(*(ours if mine else (base, "none")))
        encoded = tokenizer([text] * batch, return_tensors="pt")
        torch.manual_seed(0)
        if mine:
            return dk.generate(model, **encoded, **arguments | brief, compile=compiled)
        return model.generate(**encoded, **arguments | brief)

    def theirs(**brief: int) -> Any:
        _installed(ours[1])
        return run(False, brief)

    def mine(**brief: int) -> Any:
        return run(True, brief)

    return Row(
        base=f"transformers {base}",
        theirs=theirs,
        ours=mine,
        tokens=arguments["max_new_tokens"],
        reads=(lambda: read_bytes(*ours, NEW_TOKENS / 2)) if one else None,
        warm=drafts or briefly(theirs, mine),  # whole drafts have kernels of their own
        **about,
    )


def format_rows() -> dict[str, Row]:
    """The rows by name; models are loaded when a row runs."""
    plain, half = ("float32", "none"), ("bfloat16", "none")
    drawn = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}
    lookup = {"prompt_lookup_num_tokens": 8, "max_new_tokens": 96, "min_new_tokens": 96}
    rows = {
        "eager, float32, batch 1": _row(False, "float32", plain),
        "eager, bfloat16, batch 1": _row(False, "bfloat16", half),
    }
    for quant in ("bnb-nf4", "bnb-int8", "torchao-int8", "torchao-int4", "int8", "int4"):
        slow = quant != "bnb-nf4"  # one of them is enough for every day
        rows[f"eager, {quant}, batch 1"] = _row(False, "bfloat16", ("bfloat16", quant), slow=slow)
    compiled = {
        "float32, batch 1": ("float32", plain, {"target": 3.5}),
        "bfloat16, batch 1": ("bfloat16", half, {"target": 4.5}),
        "int8, batch 1": ("bfloat16", ("bfloat16", "int8"), {"target": 6}),
        "int4, batch 1": ("bfloat16", ("bfloat16", "int4"), {}),
        "float32, batch 8": ("float32", plain, {"batch": 8}),
        "bfloat16, batch 8": ("bfloat16", half, {"batch": 8, "target": 2}),
        "bfloat16, beam 4": ("bfloat16", half, {"num_beams": 4, "target": 2.5}),
        "bfloat16, beam 4, batch 8": (
            "bfloat16",
            half,
            {"num_beams": 4, "batch": 8, "target": 2.5, "max_new_tokens": 16, "min_new_tokens": 16},
        ),
        "bfloat16, sampled": ("bfloat16", half, drawn),
        "bfloat16, prompt lookup, copy task": (
            "bfloat16",
            half,
            {"text": COPY, "target": 2.5, **lookup},
        ),
    }
    for name, (base, ours, more) in compiled.items():
        rows[f"compiled, {name}"] = _row(True, base, ours, **more)
    return rows

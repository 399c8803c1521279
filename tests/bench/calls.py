"""The rows of ``make bench`` that are one call to ``model.generate`` and the same one to ours, eager.

Where transformers refuses the call, the base is our own plain decoding, and the row says so.
"""

from collections.abc import Callable
from typing import Any

import decodekit as dk
import torch

from tests.bench.models import COPY, STORY, briefly, loaded
from tests.bench.rows import Row

__all__ = ["call_rows"]

SHORT = {"max_new_tokens": 48, "min_new_tokens": 48}
LONG = {"max_new_tokens": 96, "min_new_tokens": 96}
DRAWN = {**SHORT, "do_sample": True, "temperature": 0.8, "top_p": 0.95}
LOOKUP = {"prompt_lookup_num_tokens": 8}
FOUR = (STORY, "The", "A list of colours:", STORY * 2)
PAGE = STORY * 80
"""About 1,200 tokens."""


def _row(prompts: tuple[str, ...], base: dict[str, Any], theirs: bool = True, **more: Any) -> Row:
    """The call with ``base`` and ``more``, against transformers or against ours without ``more``."""
    about = {name: more.pop(name) for name in ("target", "warm") if name in more}

    def run(ours: bool, arguments: dict[str, Any]) -> Any:
        model, tokenizer = loaded()
        encoded = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
        torch.manual_seed(0)
        generate: Callable[..., Any] = dk.generate if ours else type(model).generate
        return generate(model, **encoded, **arguments)

    def compared(**brief: int) -> Any:
        return run(not theirs, (base | more if theirs else base) | brief)

    def ours(**brief: int) -> Any:
        return run(True, base | more | brief)

    name = "transformers" if theirs else "our greedy"
    return Row(name, compared, ours, **{"warm": briefly(compared, ours), **about})


def call_rows() -> dict[str, Row]:
    """The rows by name."""
    one, copy = (STORY,), (COPY,)
    return {
        "greedy, ragged batch 4": _row(FOUR, SHORT),
        "sample, batch 1": _row(one, DRAWN),
        "sample, 8 sequences of one prompt": _row(one, DRAWN, num_return_sequences=8),
        "sample, 8 sequences of a prompt of 1,200 tokens": _row(
            (PAGE,),
            {**DRAWN, "max_new_tokens": 8, "min_new_tokens": 8},
            num_return_sequences=8,
            target=5,
            warm=loaded,  # the prompt itself takes half a minute
        ),
        "beam 4, batch 1": _row(one, SHORT, num_beams=4, target=1.3),
        "beam 4, batch 8": _row(
            one * 8, {"max_new_tokens": 16, "min_new_tokens": 16}, num_beams=4, target=1.3
        ),
        "prompt lookup, copy task, batch 1": _row(copy, LONG, target=1.3, **LOOKUP),
        "prompt lookup, free text, batch 1": _row(one, LONG, **LOOKUP),
        "prompt lookup against greedy, copy task, batch 1": _row(copy, LONG, False, **LOOKUP),
        "prompt lookup against greedy, free text, batch 1": _row(one, LONG, False, target=0.95, **LOOKUP),
        "prompt lookup, copy task, batch 4": _row(copy * 4, LONG, False, target=2, **LOOKUP),
        "prompt lookup, copy task, batch 8": _row(copy * 8, LONG, False, target=2, **LOOKUP),
        "prompt lookup, free text, ragged batch 4": _row(FOUR, LONG, False, **LOOKUP),
        "prompt lookup, free text, batch 8": _row((*FOUR, *FOUR), LONG, False, **LOOKUP),
    }

"""``make bench``: decodekit against transformers on the default model, in alternating runs.

Each row is the same call to ``model.generate`` and to `decodekit.generate`; the ratio is the median of
transformers' seconds over ours, so above 1 we are faster. Where transformers refuses the call, the base
is our own plain decoding, and the row says so. Rows that begin with ``chain`` are of `chains.py`, those
that begin with ``compiled`` of `compiled.py`, those that begin with ``batch`` of
`batches.py`, and those that begin with ``overhead`` of `overhead.py`.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import decodekit as dk
import torch
import transformers
from batches import batch_rows
from chains import chain_rows
from compiled import compiled_rows
from overhead import Beyond, overhead_rows
from rich.console import Console
from rich.progress import track
from rich.table import Table

Run = Callable[[], Any]
COPY = "Repeat this list exactly: red, green, blue, white, black, yellow, orange, purple, brown, pink.\n" * 3
STORY = "Once upon a time, in a small village by the sea, there lived"


def rows(model: Any, tokenizer: Any) -> dict[str, tuple[str, Run, Run]]:
    """For each row what the base is, the base, and ours."""

    def inputs(*prompts: str) -> Any:
        return tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")

    def against(theirs: bool, encoded: Any, base: dict[str, Any], **more: Any) -> tuple[str, Run, Run]:
        def generate(function: Callable[..., Any], arguments: dict[str, Any]) -> Run:
            def run() -> Any:
                torch.manual_seed(0)
                return function(**encoded, **arguments)

            return run

        def ours(**arguments: Any) -> Any:
            return dk.generate(model, **arguments)

        first = generate(model.generate, base | more) if theirs else generate(ours, base)
        return ("transformers" if theirs else "our greedy"), first, generate(ours, base | more)

    one, four, copy = inputs(STORY), inputs(STORY, "The", "A list of colours:", STORY * 2), inputs(COPY)
    short = {"max_new_tokens": 48, "min_new_tokens": 48}
    drawn = {**short, "do_sample": True, "temperature": 0.8, "top_p": 0.95}
    longer = {"max_new_tokens": 96, "min_new_tokens": 96}
    lookup = {"prompt_lookup_num_tokens": 8}
    return {
        "greedy, batch 1": against(True, one, short),
        "greedy, ragged batch 4": against(True, four, short),
        "sample, batch 1": against(True, one, drawn),
        "sample, 8 sequences of one prompt": against(True, one, drawn, num_return_sequences=8),
        "beam 4, batch 1": against(True, one, short, num_beams=4),
        "prompt lookup, copy task, batch 1": against(True, copy, longer, **lookup),
        "prompt lookup, free text, batch 1": against(True, one, longer, **lookup),
        "prompt lookup against greedy, copy task, batch 1": against(False, copy, longer, **lookup),
        "prompt lookup against greedy, free text, batch 1": against(False, one, longer, **lookup),
        "prompt lookup, copy task, batch 4": against(False, inputs(*[COPY] * 4), longer, **lookup),
        "prompt lookup, copy task, batch 8": against(False, inputs(*[COPY] * 8), longer, **lookup),
        "prompt lookup, free text, ragged batch 4": against(False, four, longer, **lookup),
    }


def measure(base: Run, ours: Run, runs: int, *, warm: bool = True) -> tuple[list[float], list[float]]:
    """Seconds of alternating runs, after one of each that is not counted; ``warm`` false spares that one."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for count in range(runs + 1 if warm else runs):
        for kept, run in zip(seconds, (base, ours), strict=True):
            start = time.perf_counter()
            found = run()
            if count or not warm:
                kept.append(found if isinstance(found, Beyond) else time.perf_counter() - start)
    return seconds


def _ratio(base: float, ours: float) -> float | None:
    """Base over ours; None where ours takes no time beyond the model's passes."""
    return round(base / ours, 2) if ours > 0 else None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()
    model, tokenizer = dk.load()
    every = rows(model, tokenizer) | chain_rows(model, tokenizer) | compiled_rows()
    every |= batch_rows(model, tokenizer)
    every |= overhead_rows()
    chosen = {name: row for name, row in every.items() if options.only in name}
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {model.dtype}"
    versions = (
        f"decodekit {dk.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    )
    results = []
    for name in track(chosen, description="measuring", console=Console(stderr=True)):
        against, base, ours = chosen[name]
        long = name.startswith("batch of")  # half a minute and more a run
        runs = min(options.runs, 2) if long else options.runs
        first, second = measure(base, ours, runs, warm=not long)
        ratios = [one / other for one, other in zip(first, second, strict=True)]
        results.append(
            {
                "row": name,
                "base": against,
                "base_seconds": round(statistics.median(first), 4),
                "seconds": round(statistics.median(second), 4),
                "ratio": _ratio(statistics.median(first), statistics.median(second)),
                "spread": [round(min(ratios), 2), round(max(ratios), 2)],
            }
        )
    if options.json:
        print(json.dumps({"machine": machine, "versions": versions, "rows": results}, indent=2))
        return
    table = Table(title=f"{machine}\n{versions}", caption="ratio above 1: we are faster")
    for column in ("row", "base", "base s", "ours s", "ratio", "spread"):
        table.add_column(column)
    for result in results:
        low, high = result["spread"]
        cells = (result["base_seconds"], result["seconds"], result["ratio"], f"{low}-{high}")
        table.add_row(result["row"], result["base"], *map(str, cells))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()

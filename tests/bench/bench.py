"""``make bench``: decodekit against transformers and other engines on the default model, in alternating runs.

The ratio of a row is the median of the base's seconds over ours, so above 1 we are faster. Rows that begin
with ``eager`` and ``compiled`` are of `formats.py`, with ``history`` of `histories.py`, with ``batch`` of
`batches.py`, with ``overhead`` of `overhead.py`, with ``chain`` of `chains.py`, with ``start`` of
`startup.py`, those with the name of another engine of `peers.py`, and all others of `calls.py`.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from decodekit import DecodekitError
from decodekit.cli.arguments import check_picture
from decodekit.errors import nearest
from rich.console import Console
from transformers.utils import logging

from tests.bench.batches import batch_rows
from tests.bench.calls import call_rows
from tests.bench.chains import chain_rows
from tests.bench.formats import format_rows
from tests.bench.histories import history_rows
from tests.bench.overhead import overhead_rows
from tests.bench.peers import peer_rows
from tests.bench.plot import draw
from tests.bench.report import Report, header
from tests.bench.rows import Missing, Result, Row, measure
from tests.bench.startup import start_rows

__all__ = ["choose", "every_row", "main", "measured"]

MINUTES = 15
NO_TIME = f"the {MINUTES} minutes are over: name a row with --only, or take --all"


def every_row() -> dict[str, Row]:
    """All rows by name, other engines last; nothing is loaded before a row runs."""
    parts = (
        chain_rows,
        overhead_rows,
        call_rows,
        batch_rows,
        format_rows,
        history_rows,
        start_rows,
        peer_rows,
    )
    return {name: row for part in parts for name, row in part().items()}


def choose(rows: Mapping[str, Row], only: Sequence[str], everything: bool) -> dict[str, Row]:
    """The rows whose names contain one of the texts; without a text those that are quick, or all.

    Raises:
        ValueError: nothing contains a text; the message has near names.
    """
    for text in only:
        if not text:
            message = "--only '' names no row: --list shows all rows"
            raise ValueError(message)
        if not any(text in name for name in rows):
            pieces = {piece for name in rows for piece in (name, *name.split(", "), *name.split())}
            message = f"--only {text!r}: no row has that in its name.{nearest(text, sorted(pieces))}"
            raise ValueError(f"{message} --list shows all rows")
    if only:
        return {name: row for name, row in rows.items() if any(text in name for text in only)}
    return {name: row for name, row in rows.items() if everything or not row.slow}


def measured(
    rows: Mapping[str, Row], runs: int, seconds: float, minutes: float, console: Console
) -> tuple[list[Result], dict[str, list[str]]]:
    """Measure the rows, and say how far it is.

    Args:
        rows: by name.
        runs: the most counted runs of each.
        seconds: of `measure`.
        minutes: for all rows: each has an equal part of what is left, and after all of them none begins.
        console: for the progress.

    Returns:
        The results, and the names of rows by the reason why they were not measured.
    """
    results: list[Result] = []
    left_out: dict[str, list[str]] = {}
    began = time.monotonic()
    for number, (name, row) in enumerate(rows.items(), 1):
        passed = time.monotonic() - began
        if passed > 60 * minutes:
            left_out.setdefault(NO_TIME, []).append(name)
            continue
        console.print(f"{passed:4.0f} s  {number} of {len(rows)}  {name}", highlight=False, markup=False)
        try:
            share = (60 * minutes - passed) / (len(rows) - number + 1)
            results.append(Result.of(name, row, measure(row, runs, seconds, share)))
        except Missing as reason:
            left_out.setdefault(str(reason), []).append(name)
    return results, left_out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="rows whose name contains this; repeatable",
    )
    parser.add_argument("--all", action="store_true", help="the rows that take minutes too, without an end")
    parser.add_argument("--list", action="store_true", help="print the names of the rows, and run nothing")
    parser.add_argument(
        "--runs",
        type=int,
        default=5,
        help="the most counted runs of each (default 5); five times as many of calls that take no second",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=8,
        help="no runs after the third begin later than this (default 8); without --only or --all a row has "
        "no more than its part of the time, if that is over after the first",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="draw the ratios into a PNG or SVG")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        chosen = choose(every_row(), options.only, options.all or options.list)
        if options.plot is not None:
            check_picture(options.plot)
    except (ValueError, DecodekitError) as error:
        parser.error(str(error))
    if not options.seconds >= 0:
        parser.error(f"--seconds {options.seconds} is not allowed: it must be at least 0")
    if options.runs < 1:
        parser.error(f"--runs {options.runs} is not allowed: it must be at least 1")
    if options.list:
        for name, row in chosen.items():
            print(f"{name}  (only with --all or --only)" if row.slow else name)
        return
    minutes = float("inf") if options.all or options.only else MINUTES
    console = Console(stderr=True)
    found = header()
    results, left_out = measured(chosen, options.runs, options.seconds, minutes, console)
    report = Report(found["machine"], found["versions"], results, left_out)
    if options.json:
        print(json.dumps(report.as_data(), indent=2))
    elif results:
        Console(width=None if sys.stdout.isatty() else 170).print(report.table())
    for note in report.notes():
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    if options.plot is not None:
        draw(options.plot, report)
        console.print(f"the picture is in {options.plot}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    logging.disable_progress_bar()  # the bars of the weights would tear the lines of the progress
    main()

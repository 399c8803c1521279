"""What ``make bench`` says: the header, the table, and the same as data."""

import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import decodekit as dk
import torch
import transformers
from rich.table import Table

from tests.bench.peers import peer_versions
from tests.bench.rows import Result

__all__ = ["Report", "header"]

LARGE = 2**26
"""Numbers of 4 bytes: more than any cache holds."""
COLOURS = {"loss": "red", "below target": "yellow", "target met": "green", "too noisy": "dim", "": ""}


def _processor() -> str:
    """The name of the CPU, as far as the system says."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or "unknown CPU"


def _memory_speed() -> float:
    """Gigabytes a second that all threads read of one large tensor; the median of five runs."""
    large = torch.ones(LARGE)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        large.sum()
        seconds.append(time.perf_counter() - start)
    return large.nbytes / statistics.median(seconds) / 1e9


def header() -> dict[str, str]:
    """The machine and the versions."""
    machine = f"{platform.machine()}, {_processor()}, {torch.get_num_threads()} threads"
    versions = (
        f"decodekit {dk.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    )
    return {
        "machine": f"{machine}, memory is read at {_memory_speed():.1f} GB/s",
        "versions": ", ".join(filter(None, (versions, peer_versions()))),
    }


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


@attrs.frozen
class Report:
    """What was measured, and what was not.

    Attributes:
        machine: what it ran on.
        versions: of the libraries.
        results: by row, in the order of the runs.
        left_out: the names of rows by the reason why they were not measured.
    """

    machine: str
    versions: str
    results: Sequence[Result]
    left_out: Mapping[str, Sequence[str]]

    def as_data(self) -> dict[str, Any]:
        """The report as what JSON can hold."""
        return {
            "machine": self.machine,
            "versions": self.versions,
            "rows": [attrs.asdict(result) for result in self.results],
            "left_out": {reason: list(names) for reason, names in self.left_out.items()},
        }

    def table(self) -> Table:
        """A line for each row; losses are said as such."""
        table = Table(title=f"{self.machine}\n{self.versions}", caption=self._caption(), show_lines=False)
        for column in ("row", "base", "base s", "ours s", "tok/s", "GB/s", "ratio", "spread", "target", ""):
            table.add_column(column)
        for result in self.results:
            low, high = result.spread
            both = (result.base_tokens_per_second, result.tokens_per_second)
            table.add_row(
                result.row,
                result.base,
                str(result.base_seconds),
                str(result.seconds),
                f"{both[0]} : {both[1]}" if both[0] is not None else "",
                _cell(result.gigabytes_per_second),
                _cell(result.ratio),
                f"{low} to {high}, {result.runs}",
                _cell(result.target),
                result.verdict,
                style=COLOURS[result.verdict],
            )
        return table

    def notes(self) -> list[str]:
        """A line for each reason why rows were not measured."""
        counts = {reason: len(names) for reason, names in self.left_out.items()}
        return [f"{reason} ({count} row{'s' * (count > 1)} left out)" for reason, count in counts.items()]

    def _caption(self) -> str:
        lost = sum(result.verdict == "loss" for result in self.results)
        below = sum(result.verdict == "below target" for result in self.results)
        return (
            f"{len(self.results)} rows, {lost} lost, {below} below their target; above 1 we are faster\n"
            "tok/s: base : ours, prompt included; GB/s: ours; spread: of the ratio, and the number of runs"
        )

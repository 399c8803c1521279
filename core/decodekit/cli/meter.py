"""How far a batch is, on standard error: a bar for people, a line now and then for logs."""

import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Meter"]

_LOG_SECONDS = 10.0


class Meter:
    """Counts lines and tokens, and shows them."""

    def __init__(self, console: Console, total: int, before: int, wanted: bool | None) -> None:
        """Show nothing yet.

        Args:
            console: standard error.
            total: lines of the input.
            before: those that earlier runs have done.
            wanted: whether to show how far it is; None where there is a terminal.
        """
        self._console = console
        self._total, self._before = total, before
        self._done = self._failed = self._tokens = 0
        self._start = self._said = time.monotonic()
        self._bar: Progress | None = None
        self._logs = bool(wanted) and not console.is_terminal
        if console.is_terminal and wanted is not False:
            speed = TextColumn("{task.fields[speed]}")
            self._bar = Progress(
                MofNCompleteColumn(), BarColumn(), speed, TimeRemainingColumn(), console=console
            )
            self._task = self._bar.add_task("lines", total=total, completed=before, speed="")

    def __enter__(self) -> "Meter":
        self._start = self._said = time.monotonic()
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def success(self, tokens: int) -> None:
        """A line is done."""
        self._tokens += tokens
        self._step()

    def failure(self, number: int, error: Exception) -> None:
        """A line has an error, which is said at once."""
        self._failed += 1
        self._print(f"line {number}: {error}", "red")
        self._step()

    def finished(self, path: Path) -> None:
        """All is done."""
        wrong = f", {self._failed} with errors" if self._failed else ""
        before = f", {self._before} were there" if self._before else ""
        lines = "1 line" if self._done == 1 else f"{self._done} lines"
        self._print(f"{lines} into {path}{wrong}{before}; {self._figures()}", "dim")

    def interrupted(self, path: Path) -> None:
        """The user has stopped it."""
        there = self._before + self._done
        self._print(
            f"interrupted: {there} of {self._total} lines are in {path}; the same command goes on", "dim"
        )

    @property
    def _speed(self) -> float:
        return self._tokens / max(time.monotonic() - self._start, 1e-9)

    def _figures(self) -> str:
        return f"{self._tokens} tokens, {self._speed:.1f} tokens/s"

    def _step(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, advance=1, speed=f"{self._speed:.1f} tok/s")
        now = time.monotonic()
        if self._logs and now - self._said >= _LOG_SECONDS:
            self._said = now
            there = self._before + self._done
            seconds = (now - self._start) / self._done * (self._total - there)
            self._print(f"{there} of {self._total} lines, {self._figures()}, {seconds:.0f} s left", "dim")

    def _print(self, text: str, style: str) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

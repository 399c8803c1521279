"""``decodekit check``: the conformance kit on a plugin, from the command line."""

import gc
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from decodekit.errors import ParameterError

if TYPE_CHECKING:
    from decodekit.testing import Report, Result

__all__ = ["check"]

_STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim", "hint": "yellow", "excepted": "yellow"}


def check(
    plugin: Annotated[
        str,
        typer.Argument(
            metavar="PLUGIN", help="MODULE:CLASS, MODULE (all plugins in it), or an installed plugin's name."
        ),
    ],
    profile: Annotated[
        str | None,
        typer.Option(help="fast, default or thorough: 10, 20 or 400 inputs a check.", show_default=False),
    ] = None,
    example: Annotated[
        list[str] | None,
        typer.Option(metavar="JSON", help="Parameter values to try, e.g. '{\"cap\": 30}'; repeatable."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this property, e.g. P8; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a plugin against its contract and its declared laws; exit code 1 when something is broken."""
    sys.path.insert(0, os.getcwd())  # as `python -m` does; the author's module is here
    from decodekit.testing import plugins_of

    gc.freeze()  # a million objects of torch and transformers, which no garbage collection need look at again
    console = Console(highlight=False, soft_wrap=True)
    options: dict[str, Any] = {"profile": profile}
    options |= {"examples": [_example(text) for text in example]} if example else {}
    reports = []
    for cls in plugins_of(plugin):
        if not as_json:
            console.print(getattr(cls, "NAME", cls), style="bold")
        reports.append(_report(cls, only or [], options, None if as_json else console))
        if not as_json:
            _summary(console, reports[-1])
    if as_json:
        typer.echo(json.dumps([report.as_data() for report in reports], indent=2))
    if any(report.of_failures() for report in reports):
        raise typer.Exit(1)


def _report(cls: Any, only: list[str], options: dict[str, Any], console: Console | None) -> "Report":
    """Run the checks; with a console each result is shown as soon as it is there."""
    from decodekit.testing import ConformanceError, check_plugin
    from decodekit.testing.check import listening

    def show(result: "Result") -> None:
        if console is not None:
            _show(console, result)

    if only:
        return _some(cls, only, options, show)
    try:
        with listening(show):
            report: Report = check_plugin(cls, **options)
    except ConformanceError as error:
        return error.report
    return report


def _some(cls: Any, only: list[str], options: dict[str, Any], show: Callable[["Result"], None]) -> "Report":
    """Run the checks of these ids; those that do not apply are an error."""
    from decodekit.testing import ConformanceError, Report, plugin_checks

    pairs = plugin_checks(cls, **options)
    known = sorted({key.partition(" ")[0] for key, _ in pairs})
    for name in only:
        if name not in known:
            message = f"--only {name}: no such property applies; these do: {', '.join(known)}"
            raise ParameterError(message)
    results = []
    for key, run in pairs:
        if key.partition(" ")[0] in only:
            try:
                results.append(run())
            except ConformanceError as error:
                results += error.report.results
            show(results[-1])
    return Report(cls.NAME, tuple(results))


def _example(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        message = f"--example {text!r} is not JSON: {error}"
        raise ParameterError(message) from error
    if not isinstance(values, dict):
        message = f"""--example {text!r} must be an object, e.g. '{{"cap": 30}}'"""
        raise ParameterError(message)
    return values


def _show(console: Console, result: "Result") -> None:
    """One line, as soon as the check has run."""
    line = f"  {result.outcome:<8} {result.id:<4} {result.title}"
    detail = result.detail.partition("\n")[0]
    rest = f": {detail}" if detail and result.outcome != "failed" else ""
    console.print(line + rest, style=_STYLES[result.outcome], markup=False)


def _summary(console: Console, report: "Report") -> None:
    for result in report.of_failures():
        console.print()
        console.print(result.explanation(), markup=False)
    console.print()
    console.print(str(report).partition("\n")[0], style="bold", markup=False)

"""``decodekit plugins``: what is installed, from where, with which parameters, and what is wrong."""

import json
from typing import Annotated

import typer
from rich.console import Console

from decodekit.cli.tables import as_data, plugin_table
from decodekit.contract import BASES, NOUNS, Kind
from decodekit.registry import registry

__all__ = ["plugins"]


def plugins(
    kind: Annotated[Kind | None, typer.Argument(help="Only this kind.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the traceback of what failed.")] = False,
) -> None:
    """List the installed plugins with their parameters, and those that could not be loaded."""
    known = registry()
    kinds = list(BASES) if kind is None else [kind]
    if as_json:
        failures = [{"plugin": str(failure), "traceback": failure.traceback} for failure in known.failures]
        report = {name: as_data(name) for name in kinds} | {"failures": failures, "disabled": known.disabled}
        typer.echo(json.dumps(report, default=str, indent=2))
        return
    console = Console()
    for name in kinds:
        console.print(plugin_table(name, name.replace("_", " ")), "")
    for name in kinds:
        for clashing, entries in known.entries(name).items():
            if len(entries) > 1:
                console.print(
                    f"The {NOUNS[name]} {clashing!r} is claimed by {' and '.join(map(str, entries))}."
                )
    for failure in known.failures:
        console.print(f"Not loaded: {failure}", style="red", markup=False, soft_wrap=True)
        if verbose:
            console.print(failure.traceback, markup=False, soft_wrap=True)
    for key in known.disabled:
        console.print(f"Kept out by DECODEKIT_DISABLED_PLUGINS: {key}", markup=False)

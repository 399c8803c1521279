"""``decodekit plugins``: what is installed, what is wrong with it, and what the user keeps out."""

import functools
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from decodekit.cli.tables import as_data, plugin_table
from decodekit.contract import BASES, NOUNS, Kind
from decodekit.discovery import disabled_by_environment, names_of, origin_of, points
from decodekit.doctor import Finding, diagnose
from decodekit.errors import ParameterError, UnknownNameError, nearest
from decodekit.registry import registry
from decodekit.settings import disabled_plugins, normal_name, set_disabled
from decodekit.trust import allow_folder, allow_list_file, allow_plugin

__all__ = ["plugins"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show the traceback of what failed.")]
Names = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="Distributions, or distribution:entry-point.")
]

plugins = typer.Typer(
    invoke_without_command=True,
    help="List the installed plugins with their parameters, and those that could not be loaded.",
)


@plugins.callback()
def _all(ctx: typer.Context, as_json: AsJson = False, verbose: Verbose = False) -> None:
    if ctx.invoked_subcommand is None:
        _list(list(BASES), as_json, verbose)


def _add_kind(kind: Kind) -> None:
    @plugins.command(kind, help=f"List the {kind.replace('_', ' ')} alone.")
    def show(as_json: AsJson = False, verbose: Verbose = False) -> None:
        _list([kind], as_json, verbose)


for _kind in BASES:
    _add_kind(_kind)


def _list(kinds: list[Kind], as_json: bool, verbose: bool) -> None:
    known = registry()
    if as_json:
        failures = [{"plugin": str(failure), "traceback": failure.traceback} for failure in known.failures]
        report = {name: as_data(name) for name in kinds}
        typer.echo(
            json.dumps(report | {"failures": failures, "disabled": known.disabled}, default=str, indent=2)
        )
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
    if known.failures:
        console.print("`decodekit plugins doctor` says how to mend it.", soft_wrap=True)
    for key, what in known.disabled.items():
        console.print(f"Kept out by {what}: {key}", markup=False)


@plugins.command()
def doctor(
    seconds: Annotated[float, typer.Option(min=0.1, help="How long one plugin may take to import.")] = 20.0,
    as_json: AsJson = False,
) -> None:
    """Import each plugin in a process of its own, and say what is wrong and what mends it.

    The exit code is 1 when a plugin can't be used.
    """
    console = Console(highlight=False, soft_wrap=True)
    found = diagnose(seconds=seconds, progress=(lambda finding: None) if as_json else _teller(console))
    if as_json:
        fields = ("plugin", "state", "problem", "remedy", "names", "seconds")
        typer.echo(json.dumps([{name: getattr(item, name) for name in fields} for item in found], indent=2))
    elif not found:
        console.print("no plugin is installed")
    if not all(finding.healthy for finding in found):
        raise typer.Exit(1)


def _teller(console: Console) -> "functools.partial[None]":
    return functools.partial(_tell, console)


def _tell(console: Console, finding: Finding) -> None:
    style = "green" if finding.state == "ok" else "dim" if finding.healthy else "bold red"
    console.print(f"{finding.state:<16}{finding.plugin}", style=style, markup=False)
    if finding.problem:
        console.print(f"{'':<16}{finding.problem}", markup=False)
    if finding.remedy:
        console.print(f"{'':<16}{finding.remedy}", style="cyan", markup=False)


@plugins.command()
def disable(names: Names) -> None:
    """Keep plugins out from now on; nothing of them is imported."""
    _check_installed(names)
    set_disabled(names, True)
    for name in names:
        typer.echo(f"{name} is kept out; `decodekit plugins enable {name}` lets it in again")


@plugins.command()
def enable(names: Names) -> None:
    """Let plugins in again that were disabled."""
    off = disabled_plugins()
    for name in names:
        if normal_name(name) not in off:
            where = (
                " (an environment variable keeps it out)"
                if normal_name(name) in disabled_by_environment()
                else ""
            )
            message = f"{name!r} is not disabled{where}.{nearest(normal_name(name), off)} Disabled: "
            raise UnknownNameError(message + (", ".join(off) or "nothing"))
    set_disabled(names, False)
    for name in names:
        typer.echo(f"{name} is let in again")


@plugins.command()
def allow(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Distributions with plugins.")
    ] = None,
    folder: Annotated[
        list[Path] | None, typer.Option(help="A folder with custom_generate/generate.py; repeatable.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every installed distribution with plugins.")
    ] = False,
) -> None:
    """Put plugins on the allow-list, as they are now; once there is a list, nothing else is loaded."""
    installed = sorted({origin_of(point)[0] for point in points()})
    chosen = installed if everything else list(names or ())
    if not chosen and not folder:
        message = "name what to allow: distributions, --folder FOLDER, or --all"
        raise ParameterError(message)
    if not everything:
        _check_installed(chosen)
    for name in chosen:
        try:
            allow_plugin(distribution(name))
        except PackageNotFoundError as error:
            message = f"there is no distribution {name!r}: name a distribution, not an entry point"
            raise UnknownNameError(message) from error
    for path in folder or ():
        if not (path / "custom_generate" / "generate.py").is_file():
            message = f"--folder {path}: there is no custom_generate/generate.py in it"
            raise ParameterError(message)
        allow_folder(path)
    typer.echo(
        f"{len(chosen) + len(folder or ())} allowed in {allow_list_file()}; nothing else is loaded now"
    )


def _check_installed(names: list[str]) -> None:
    known = sorted({name for point in points() for name in names_of(point)})
    for name in names:
        if normal_name(name) not in known:
            message = f"no installed plugin is called {name!r}.{nearest(normal_name(name), known)}"
            message += f" Installed: {', '.join(known)}"
            raise UnknownNameError(message)

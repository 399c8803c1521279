"""``decodekit new``: a plugin package that works before its first edit."""

from pathlib import Path
from typing import Annotated

import typer

from decodekit.scaffold import NEW_KINDS, new_plugin

__all__ = ["new"]


def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"{', '.join(NEW_KINDS)}.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, e.g. soft_cap.")],
    into: Annotated[
        Path, typer.Option(file_okay=False, help="The folder in which the package's folder is made.")
    ] = Path(),
) -> None:
    """Write an installable plugin package: a class, its tests, an entry point, README and CI."""
    folder = new_plugin(kind, name, into)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    typer.echo(f"{folder}: {', '.join(files)}\n\nNext:")
    typer.echo(f'  cd {folder}\n  pip install -e ".[test]"\n  pytest\n  decodekit plugins {NEW_KINDS[kind]}')

"""The command ``decodekit`` and its subcommands."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from decodekit import __version__
from decodekit.cli.batch import batch
from decodekit.cli.cache import cache
from decodekit.cli.check import check
from decodekit.cli.explain import explain
from decodekit.cli.generate import WithPlugins, generate
from decodekit.cli.new import new
from decodekit.cli.plugins import plugins
from decodekit.cli.quant import quant
from decodekit.errors import DecodekitError, DecodekitWarning

__all__ = ["app", "main"]

INTERRUPTED = 130  # what shells report for Ctrl-C
REFUSED = 2


class Commands(TyperGroup):
    """The commands; an error of decodekit is one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with _notes():
                return super().invoke(ctx)
        except DecodekitError as error:
            console = Console(stderr=True)
            if ctx.params.get("debug"):
                console.print_exception()
            console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(REFUSED) from error
        except typer.BadParameter as error:
            _name_value(error)
            raise
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _name_value(error: typer.BadParameter) -> None:
    """Put the value into the message of an option that can't be read; newer Typers leave it out."""
    details = getattr(error.__cause__, "errors", None)  # of pydantic, by which they read
    if callable(details):
        values = [detail["input"] for detail in details() if "input" in detail]
        message = f"{error.message[:1].lower()}{error.message[1:]}"
        error.message = f"{values[0]!r} is not allowed: {message}" if values else error.message


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """Tell each warning of decodekit once, in a line, and leave those of others to Python."""
    told = set[str]()
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, DecodekitWarning):
            others(message, category, *where, **more)
        elif str(message) not in told:
            told.add(str(message))
            note = f"note: {message}"
            Console(stderr=True).print(note, style="dim", markup=False, highlight=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DecodekitWarning)
        warnings.showwarning = show
        yield


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Decode text from Hugging Face models, with plugins.",
)
app.command(cls=WithPlugins)(generate)
app.command()(batch)
app.command()(explain)
app.command()(check)
app.command()(new)
app.add_typer(plugins, name="plugins")
app.command()(quant)
app.add_typer(cache, name="cache")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"decodekit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="DECODEKIT_DEBUG", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the entry point of ``decodekit`` and ``python -m decodekit``."""
    app(prog_name="decodekit")

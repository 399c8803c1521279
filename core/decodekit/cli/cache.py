"""``decodekit cache``: the converted default model on this machine."""

import typer

from decodekit.default_model import MODEL_NAME, cache_folder, clear_cache, default_model_folder, verify

__all__ = ["cache"]

cache = typer.Typer(invoke_without_command=True, help="Show the cached default model, or clear it.")


@cache.callback()
def _show(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is not None:
        return
    folder = default_model_folder()
    typer.echo(f"folder: {cache_folder()}")
    if not folder.exists():
        typer.echo(f"{MODEL_NAME}: not there; the first start converts it")
        return
    verify(folder, checksums=True)
    size = sum(file.stat().st_size for file in folder.iterdir())
    typer.echo(f"{MODEL_NAME}: whole, {size / 1e6:.0f} MB")


@cache.command()
def clear() -> None:
    """Delete the converted default model; the next start converts it again."""
    typer.echo(f"{clear_cache() / 1e6:.0f} MB are free again in {cache_folder()}")

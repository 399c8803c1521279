"""``decodekit cache``: what decodekit keeps on this machine: converted models and compiled kernels."""

import typer

from decodekit.converted import cache_folder, clear_cache, converted_models, verify
from decodekit.default_model import MODEL_NAME, default_model_folder
from decodekit.kernels import kernel_files

__all__ = ["cache"]

cache = typer.Typer(
    invoke_without_command=True, help="Show the converted models and the compiled kernels, or clear them."
)


@cache.callback()
def _show(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is not None:
        return
    typer.echo(f"folder: {cache_folder()}")
    if not default_model_folder().exists():
        typer.echo(f"{MODEL_NAME}: not there; the first start converts it")
    for folder in converted_models():
        verify(folder, checksums=True)
        size = sum(file.stat().st_size for file in folder.iterdir())
        name = MODEL_NAME if folder == default_model_folder() else folder.name
        typer.echo(f"{name}: whole, {size / 1e6:.0f} MB")
    kernels = kernel_files()
    if kernels:
        size = sum(file.stat().st_size for file in kernels)
        typer.echo(f"kernels: {len(kernels)} of compile=True, {size / 1e6:.0f} MB")


@cache.command()
def clear() -> None:
    """Delete converted models and compiled kernels; a start that needs one makes it again."""
    typer.echo(f"{clear_cache() / 1e6:.0f} MB are free again in {cache_folder()}")

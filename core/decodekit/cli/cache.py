"""``decodekit cache``: what decodekit keeps on this machine."""

import typer

from decodekit.converted import cache_folder, clear_cache, converted_models, verify
from decodekit.default_model import MODEL_NAME, default_model_folder
from decodekit.kernels import kernel_files

__all__ = ["cache"]

cache = typer.Typer(
    invoke_without_command=True,
    help="Show what is kept on this machine, or clear it: converted models, compiled kernels, and what the "
    "benchmarks have converted for other engines.",
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
    converted = [file for file in (cache_folder() / "bench").rglob("*") if file.is_file()]
    if converted:
        size = sum(file.stat().st_size for file in converted)
        typer.echo(f"bench: converted for other engines, {size / 1e6:.0f} MB")


@cache.command()
def clear() -> None:
    """Delete all of that; a start that needs some of it makes it again."""
    typer.echo(f"{clear_cache() / 1e6:.0f} MB are free again in {cache_folder()}")

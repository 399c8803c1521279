"""``decodekit quant``: which backends work here, and what each is worth on a model."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from decodekit.cli.arguments import check_picture, read_spec
from decodekit.default_model import MODEL_NAME
from decodekit.errors import DecodekitError, ModelNotFoundError, ParameterError
from decodekit.figures import Figures, measure
from decodekit.load import device_of
from decodekit.registry import registry

__all__ = ["quant"]

_SPEC = "NAME:KEY=VALUE,..."
_MARKERS = "osD^v<>PX*"

Model = Annotated[
    str | None,
    typer.Option(
        metavar="DIR_OR_ID", help=f"A folder, a GGUF file or a hub id; left out, the embedded {MODEL_NAME}."
    ),
]
Backends = Annotated[
    list[str] | None,
    typer.Option("--backend", metavar=_SPEC, help="Only this backend; repeatable. Left out, all of them."),
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Draw quality against bytes and speed into this file (png, svg, pdf)."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda:0, ...; left out, the first GPU or the CPU.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto: the model's own.")]
OnlyList = Annotated[bool, typer.Option("--list", help="Only say what is usable; load nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")]


def quant(
    model: Model = None,
    backend: Backends = None,
    plot: Plot = None,
    device: Device = None,
    dtype: Dtype = "auto",
    only_list: OnlyList = False,
    as_json: AsJson = False,
) -> None:
    """Compare the quantization backends on a model: bytes, seconds to load, speed, and what quality is left.

    Each backend is measured in a process of its own, after the unquantized model. Perplexity and
    agreement (the share of positions with the same most probable next token as unquantized) are of a
    text that comes with decodekit.
    """
    if plot is not None:
        _check_plot(plot, only_list)
    specs = [read_spec(text) for text in backend or sorted(registry().entries("quant_backends"))]
    problems = {_said(spec): _problems(spec, device) for spec in specs}
    rows: dict[str, Figures | str] = {}
    if not only_list:
        usable = [spec for spec in specs if not problems[_said(spec)]]
        rows = _measured(usable, {"name_or_path": model, "device_map": device, "dtype": dtype})
    if as_json:
        typer.echo(json.dumps(_data(problems, rows), indent=2))
    else:
        Console().print(_table(specs, problems, rows, str(device_of(device)), model or MODEL_NAME))
    if plot is not None:
        _draw(plot, [row for row in rows.values() if isinstance(row, Figures)], model or MODEL_NAME)
        Console(stderr=True).print(f"The plot is in {plot}.", markup=False, highlight=False)


def _problems(spec: tuple[str, dict[str, str]], device: str | None) -> list[str]:
    made = registry().resolve("quant_backends", spec)
    problems: list[str] = made.problems(device_of(device))
    return problems


def _measured(specs: list[tuple[str, dict[str, str]]], arguments: dict[str, Any]) -> dict[str, Figures | str]:
    """The figures of each backend, or why there are none; the unquantized model comes first."""
    ordered = sorted(specs, key=lambda spec: spec[0] != "none")
    rows: dict[str, Figures | str] = {}
    console = Console(stderr=True)
    reference: tuple[int, ...] | None = None
    if not any(name == "none" for name, _ in ordered):
        ordered = [("none", {}), *ordered]
    for spec in ordered:
        with console.status(f"measuring {_said(spec)}"):
            row = _in_a_process(spec, {**arguments, "reference": reference})
        if spec[0] == "none":
            reference = row.argmax if isinstance(row, Figures) else None
            row = attrs.evolve(row, agreement=1.0) if isinstance(row, Figures) else row
        if spec in specs:
            rows[_said(spec)] = row
    return rows


def _in_a_process(spec: tuple[str, dict[str, str]], arguments: dict[str, Any]) -> Figures | str:
    """Measure where nothing else is loaded, so that bytes are its own and a crash ends only this row."""
    fresh = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=fresh) as pool:
            return pool.submit(_measure, spec, arguments).result()
    except BrokenProcessPool:
        return "the process ended, most likely for want of memory"
    except ModelNotFoundError:  # which no other backend will find either
        raise
    except DecodekitError as error:
        return str(error)


def _measure(spec: tuple[str, dict[str, str]], arguments: dict[str, Any]) -> Figures:
    from transformers.utils import logging

    logging.disable_progress_bar()
    return measure(quant=registry().resolve("quant_backends", spec), **arguments)


def _said(spec: tuple[str, dict[str, str]]) -> str:
    name, values = spec
    return name + (":" if values else "") + ",".join(f"{key}={value}" for key, value in values.items())


def _table(
    specs: list[tuple[str, dict[str, str]]],
    problems: dict[str, list[str]],
    rows: dict[str, Figures | str],
    device: str,
    model: str,
) -> Table:
    table = Table(
        title=f"Quantization backends on {device}, {model}" if rows else f"Quantization backends on {device}"
    )
    table.add_column("backend", no_wrap=True)
    heads = ("MB", "process MB", "load s", "tokens/s", "perplexity", "agreement") if rows else ()
    for head in heads:
        table.add_column(head, justify="right")
    table.add_column("usable")
    for spec in specs:
        row = rows.get(_said(spec))
        cells = _cells(row) if isinstance(row, Figures) else [""] * len(heads)
        why = "; ".join(problems[_said(spec)]) or (row if isinstance(row, str) else "yes")
        table.add_row(_said(spec), *cells, Text(why, style="" if why == "yes" else "red"))
    return table


def _cells(row: Figures) -> list[str]:
    process = "" if row.process_bytes is None else f"{row.process_bytes / 1e6:.1f}"
    agreement = "" if row.agreement is None else f"{row.agreement:.1%}"
    speed, seconds = f"{row.tokens_per_second:.1f}", f"{row.load_seconds:.1f}"
    return [f"{row.bytes / 1e6:.1f}", process, seconds, speed, f"{row.perplexity:.2f}", agreement]


def _data(problems: dict[str, list[str]], rows: dict[str, Figures | str]) -> dict[str, Any]:
    data: dict[str, Any] = {name: {"problems": found} for name, found in problems.items()}
    for name, row in rows.items():
        values = attrs.asdict(row) if isinstance(row, Figures) else {"error": row}
        values.pop("argmax", None)
        data[name] = {"problems": [], **values}
    return data


def _check_plot(plot: Path, only_list: bool) -> None:
    """Say what is wrong with the file before minutes of measuring."""
    if only_list:
        message = "--plot has nothing to draw with --list: leave out one of them"
        raise ParameterError(message)
    check_picture(plot)


def _draw(plot: Path, rows: list[Figures], model: str) -> None:
    """Perplexity against megabytes, and against tokens a second."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for number, row in enumerate(rows):
        agreement = "" if row.agreement is None else f", {row.agreement:.0%}"
        shape: dict[str, Any] = {"marker": _MARKERS[number % len(_MARKERS)], "s": 60, "alpha": 0.8}
        axes[0].scatter(row.bytes / 1e6, row.perplexity, label=f"{row.backend}{agreement}", **shape)
        axes[1].scatter(row.tokens_per_second, row.perplexity, **shape)
    axes[0].set_xlabel("MB of the model")
    axes[1].set_xlabel("tokens/s, one row")
    axes[0].set_ylabel("perplexity")
    figure.legend(loc="outside right upper", title="agreement")
    figure.suptitle(model)
    figure.savefig(plot)

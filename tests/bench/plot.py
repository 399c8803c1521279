"""The picture of ``make bench``: a bar for each row, its ratio on a logarithmic axis."""

from pathlib import Path

from decodekit import MissingLibraryError, ParameterError

from tests.bench.report import Report

__all__ = ["ENDINGS", "check_plot", "draw"]

ENDINGS = (".png", ".svg")
COLOURS = {"loss": "#c44e52", "below target": "#dd9f4c", "target met": "#4c8c5a", "": "#4c72b0"}
MEANINGS = {"": "faster", "target met": "target met", "below target": "below target", "loss": "loss"}


def check_plot(path: Path) -> None:
    """Say what is wrong with the file before minutes of measuring.

    Raises:
        ParameterError: the ending is not allowed, or the folder is not there.
        MissingLibraryError: matplotlib is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        message = f"--plot {path} is not allowed: the name must end with {' or '.join(ENDINGS)}"
        raise ParameterError(message)
    if not path.absolute().parent.is_dir():
        message = f"--plot {path}: there is no folder {path.absolute().parent}; make it first"
        raise ParameterError(message)
    try:
        import matplotlib  # noqa: F401  # only to know early
    except ImportError as error:
        message = "--plot needs the library matplotlib: pip install -c constraints.txt matplotlib"
        raise MissingLibraryError(message) from error


def draw(path: Path, report: Report) -> None:
    """Write the picture; a row without a ratio has no bar.

    Args:
        path: the file, PNG or SVG by its ending.
        report: what was measured.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = [result for result in report.results if result.ratio is not None and result.ratio > 0]
    figure = Figure(figsize=(11, 1.8 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    for place, result in enumerate(rows):
        # From 1 to the ratio: on a logarithmic axis there is no zero to begin at.
        axes.barh(place, result.ratio - 1, left=1, color=COLOURS[result.verdict], height=0.7)
        axes.text(max(result.ratio, 1), place, f" {result.ratio}", va="center", fontsize=7)
        if result.target is not None:
            axes.plot([result.target], [place], marker="|", color="black", markersize=11, linestyle="none")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.margins(x=0.1)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="both", labelsize=7)
    named = [
        result.row if "against" in result.row else f"{result.row} (against {result.base})" for result in rows
    ]
    axes.set_yticks(range(len(rows)), named, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("seconds of the base over ours: above 1 we are faster; a tick is the target")
    found = {result.verdict for result in rows}
    shown = [Patch(color=COLOURS[key], label=word) for key, word in MEANINGS.items() if key in found]
    figure.legend(handles=shown, loc="outside lower center", ncols=4, fontsize=7)
    figure.suptitle(f"{report.machine}\n{report.versions}", fontsize=7)
    figure.savefig(path, dpi=150)

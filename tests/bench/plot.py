"""The picture of ``make bench``: a bar for each row, its ratio on a logarithmic axis."""

from pathlib import Path

from tests.bench.report import Report

__all__ = ["draw"]

COLOURS = {
    "loss": "#c44e52",
    "below target": "#dd9f4c",
    "target met": "#4c8c5a",
    "too noisy": "#999999",
    "": "#4c72b0",
}
MEANINGS = {"": "faster", **{verdict: verdict for verdict in COLOURS if verdict}}


def draw(path: Path, report: Report) -> None:
    """Write the picture; a row without a ratio has no bar.

    Args:
        path: the file; its ending says what kind of picture.
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

from matplotlib.figure import Figure

from tests.bench.plot import COLOURS, draw
from tests.bench.report import Report


def test_a_bar_goes_from_1_to_the_ratio_and_losses_have_another_colour(result, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: kept.append(figure))
    rows = [result("fast", 4.0, 2.0, "target met"), result("lost", 0.5, None, "loss"), result("none", None)]
    draw(tmp_path / "speed.svg", Report("a machine", "some versions", rows, {}))
    [axes] = kept[0].axes
    ends = [sorted((bar.get_x(), bar.get_x() + bar.get_width())) for bar in axes.patches]
    assert ends == [[1, 4], [0.5, 1]]
    assert axes.get_xscale() == "log"
    [tick] = [line for line in axes.lines if line.get_marker() == "|"]
    assert list(tick.get_xdata()) == [2.0]
    assert COLOURS["loss"] not in {COLOURS["target met"], COLOURS[""], COLOURS["below target"]}
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()


def test_an_svg_has_the_names_of_rows_and_the_header(result, tmp_path):
    path = tmp_path / "speed.svg"
    draw(path, Report("a machine", "some versions", [result("greedy", 2.0)], {}))
    text = path.read_text()
    assert all(word in text for word in ("greedy (against base)", "a machine", "some versions"))

import json

import decodekit as dk
import pytest
from rich.console import Console

from tests.bench import bench
from tests.bench.rows import Missing, Row, Seconds

QUIET = Console(quiet=True)


def seconds(value):
    return lambda: Seconds(value)


def row(base=2.0, ours=1.0, **more):
    return Row("base", seconds(base), seconds(ours), **more)


ROWS = {"beam 4, batch 1": row(), "greedy, batch 1": row(), "batch of many": row(slow=True)}


def test_all_rows_have_names_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(dk, "load", None)
    names = [*bench.every_row()]
    wanted = ("overhead", "eager", "compiled", "beam", "chain", "history", "batch", "sequences", "start")
    for word in (*wanted, "prompt lookup", "llama.cpp", "CTranslate2", "OpenVINO"):
        assert any(word in name for name in names)


def test_slow_rows_are_measured_when_they_are_asked_for():
    assert [*bench.choose(ROWS, [], False)] == ["beam 4, batch 1", "greedy, batch 1"]
    assert [*bench.choose(ROWS, [], True)] == [*ROWS]
    assert [*bench.choose(ROWS, ["many"], False)] == ["batch of many"]
    assert [*bench.choose(ROWS, ["many", "greedy"], False)] == ["greedy, batch 1", "batch of many"]


@pytest.mark.parametrize(("text", "near"), [("beem", "'beam'"), ("gredy, batch 1", "'greedy, batch 1'")])
def test_a_text_that_no_row_has_is_an_error_with_near_names(text, near):
    with pytest.raises(ValueError, match=f"no row has that.*{near}.*--list"):
        bench.choose(ROWS, ["greedy", text], True)


def no_engine():
    raise Missing("x is not installed: pip install x")


def test_rows_that_miss_something_are_left_out_under_one_reason():
    missing = Row("x", no_engine, no_engine)
    results, left_out = bench.measured({"a": missing, "b": row(), "c": missing}, 1, 1, 1, QUIET)
    assert [result.row for result in results] == ["b"]
    assert left_out == {"x is not installed: pip install x": ["a", "c"]}


@pytest.mark.parametrize(("minutes", "parts"), [(1, [20, 30, 60]), (float("inf"), [float("inf")] * 3)])
def test_each_row_has_an_equal_part_of_the_time_that_is_left(minutes, parts, monkeypatch):
    given = []
    monkeypatch.setattr(bench, "measure", lambda *arguments: given.append(arguments[-1]) or ([2.0], [1.0]))
    bench.measured({name: row() for name in "abc"}, 1, 1, minutes, QUIET)
    assert given == pytest.approx(parts, abs=1)


def test_rows_that_find_no_time_are_named():
    results, left_out = bench.measured({"a": row(), "b": row()}, 1, 1, -1, QUIET)
    assert (results, left_out) == ([], {bench.NO_TIME: ["a", "b"]})


@pytest.fixture
def few(monkeypatch):
    rows = {"good": row(), "bad": row(1.0, 2.0), "missing": Row("x", no_engine, no_engine)}
    monkeypatch.setattr(bench, "every_row", lambda: rows)
    monkeypatch.setattr(bench, "header", lambda: {"machine": "a machine", "versions": "some versions"})
    return rows


@pytest.mark.usefixtures("few")
def test_json_has_every_row_and_what_was_left_out(capsys):
    bench.main(["--json", "--runs", "1"])
    found = json.loads(capsys.readouterr().out)
    assert (found["machine"], found["versions"]) == ("a machine", "some versions")
    assert [(entry["row"], entry["ratio"], entry["verdict"]) for entry in found["rows"]] == [
        ("good", 2.0, ""),
        ("bad", 0.5, "loss"),
    ]
    assert found["left_out"] == {"x is not installed: pip install x": ["missing"]}


@pytest.mark.usefixtures("few")
def test_the_table_is_on_stdout_and_all_else_on_stderr(capsys):
    bench.main(["--runs", "1"])
    out, err = capsys.readouterr()
    assert "a machine" in out
    assert "loss" in out
    assert "2 of 3  bad" in err
    assert "x is not installed: pip install x (1 row left out)" in err


@pytest.mark.usefixtures("few")
def test_a_list_runs_nothing(capsys):
    bench.main(["--list"])
    assert capsys.readouterr().out.split() == ["good", "bad", "missing"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--only", "goood"],
        ["--only", ""],
        ["--runs", "0"],
        ["--seconds", "nan"],
        ["--seconds", "-1"],
        ["--plot", "no-such-folder/a.svg"],
        ["--plot", "a.txt"],
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(few, wrong, capsys):
    few["good"] = Row("x", None, None)
    with pytest.raises(SystemExit):
        bench.main(wrong)
    assert "error: " + wrong[0] in capsys.readouterr().err


@pytest.mark.usefixtures("few")
def test_a_picture_is_drawn_of_what_was_measured(tmp_path):
    bench.main(["--runs", "1", "--plot", str(tmp_path / "speed.svg")])
    assert "<svg" in (tmp_path / "speed.svg").read_text()

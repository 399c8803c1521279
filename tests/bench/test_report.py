from rich.console import Console

from tests.bench.report import Report, header


def shown(report):
    console = Console(width=200, record=True, quiet=True)
    console.quiet = False
    with console.capture() as capture:
        console.print(report.table())
    return capture.get()


def test_the_table_says_losses_and_targets(result):
    rows = [result("fast", 3.0, 2.0, "target met"), result("lost", 0.5, None, "loss"), result("none", None)]
    text = shown(Report("a machine", "some versions", rows, {}))
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert "target met" in lines["fast"]
    assert "loss" in lines["lost"]
    assert "10.0 : 20.0" in lines["fast"]
    assert "3 rows, 1 lost, 0 below their target" in text
    assert "a machine" in text
    assert "some versions" in text


def test_each_reason_is_one_line():
    report = Report("", "", [], {"one is not installed": ["a", "b"], "two is not installed": ["c"]})
    assert report.notes() == [
        "one is not installed (2 rows left out)",
        "two is not installed (1 row left out)",
    ]


def test_the_header_names_machine_and_versions():
    found = header()
    assert "threads" in found["machine"]
    assert "GB/s" in found["machine"]
    assert "transformers 5." in found["versions"]

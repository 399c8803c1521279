import json
import sys

import pytest
from decodekit.registry import Registry

SOURCE = """
import attrs, torch
import decodekit as dk

@attrs.frozen
class Cap(dk.Processor):
    NAME = "cap"
    cap: float = dk.param(help="free")

    def __call__(self, logits, history):
        return self.cap * torch.tanh(logits / self.cap)
"""


@pytest.fixture(autouse=True)
def few_checks(monkeypatch, tmp_path):
    module = sys.modules["decodekit.testing.processor_checks"]
    few = [item for item in module.PROCESSOR_CHECKS if item.id in ("P1", "P8", "P9")]
    monkeypatch.setattr(module, "PROCESSOR_CHECKS", few)
    (tmp_path / "cap_in_a_folder.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path[:])
    monkeypatch.delitem(sys.modules, "cap_in_a_folder", raising=False)


def check(run, *arguments):
    return run("check", *arguments, "--profile", "fast")


def test_a_report_comes_line_by_line_with_its_failures_in_full(run):
    result = check(run, "cap_in_a_folder:Cap", "--example", '{"cap": 2.0}')

    assert result.exit_code == 1
    assert "  passed   P1   shape dtype and device\n  failed   P8   no resurrection\n" in result.stdout
    assert "Why it matters: " in result.stdout
    assert "def test_p8_no_resurrection():" in result.stdout
    assert result.stdout.endswith("processor cap: 1 passed, 1 failed, 1 skipped\n")


def test_an_installed_plugin_that_conforms_is_exit_code_0(run):
    result = check(run, "top_k")

    assert result.exit_code == 0
    assert result.stdout.startswith("top_k\n  passed   P1 ")


def test_a_report_as_json(run):
    (report,) = json.loads(check(run, "cap_in_a_folder", "--example", '{"cap": 2}', "--json").stdout)

    assert (report["name"], report["conforms"]) == ("processor cap", False)
    assert [item["outcome"] for item in report["results"]] == ["passed", "failed", "skipped"]
    assert report["results"][1]["test"].startswith("from math import inf")
    assert report["results"][2]["law"] == "shift_invariant"


def test_only_some_properties_are_checked(run):
    result = check(run, "top_k", "--only", "P8")

    assert result.exit_code == 0
    assert result.stdout == "top_k\n  passed   P8   no resurrection\n\ntop_k: 1 passed\n"
    failed = check(run, "cap_in_a_folder", "--only", "P8", "--example", '{"cap": 2}')
    assert failed.exit_code == 1
    assert "def test_p8_no_resurrection():" in failed.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cap_in_a_folder:Cap"], "needs values of cap, which has no range"),
        (["cap_in_a_folder:Cup"], "has no 'Cup'. Did you mean 'Cap'"),
        (["min_q"], "is no installed plugin, and there is no module 'min_q'. Did you mean 'min_p'"),
        (["top_k", "--example", "{"], "--example '{' is not JSON"),
        (["top_k", "--example", "3"], "must be an object"),
        (["top_k", "--only", "S1"], "--only S1: no such property applies; these do: P1, P8, P9"),
    ],
)
def test_what_can_not_be_checked_is_one_line(run, refused, arguments, message):
    assert message in refused_line(run("check", *arguments, "--profile", "fast"))


def test_a_profile_that_is_not_there_is_one_line(run, refused):
    assert "profile='quick' must be one of fast" in refused_line(run("check", "top_k", "--profile", "quick"))


def refused_line(result):
    """A name may already have been printed."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_a_plugin_that_was_not_loaded_is_told_with_the_reason(run, install_plugin, monkeypatch):
    install_plugin("kit-broken", "import no_such_thing")
    mine = Registry()
    monkeypatch.setattr("decodekit.testing.conformance.registry", lambda: mine)
    result = run("check", "soft_limit")
    assert result.exit_code == 2
    assert "Not loaded: kit-broken" in result.stderr
    assert "no_such_thing" in result.stderr

import importlib
import json

import pytest
from decodekit import ParameterError

MODULE = importlib.import_module("decodekit.cli.quant")


@pytest.fixture
def here(monkeypatch):
    """Measure in this process: a new one takes seconds to import torch."""

    def measure(spec, arguments):
        try:
            return MODULE._measure(spec, arguments)
        except ParameterError as error:
            return str(error)

    monkeypatch.setattr(MODULE, "_in_a_process", measure)


def test_the_list_says_what_is_usable_and_why_not(run, monkeypatch):
    from decodekit_quant_backends.torchao_int8 import TorchaoInt8

    monkeypatch.setattr(TorchaoInt8, "REQUIRES", {"no_such_library": "no-such-library>=2"})

    rows = {line.split()[1]: line for line in run("quant", "--list").stdout.splitlines() if "torchao" in line}

    assert "yes" in rows["torchao-int4"]
    assert "no_such_library" in rows["torchao-int8"]


def test_figures_of_each_backend_beside_the_unquantized_model(run, here, tiny_folder):
    result = run(
        "quant", "--model", str(tiny_folder), "--backend", "torchao-int8", "--backend", "none", "--json"
    )

    rows = json.loads(result.stdout)

    assert rows["none"]["agreement"] == 1.0
    assert 0.8 < rows["torchao-int8"]["agreement"] <= 1.0
    assert rows["torchao-int8"]["bytes"] < rows["none"]["bytes"]
    for row in rows.values():
        assert row["perplexity"] > 1
        assert row["tokens_per_second"] > 0
        assert row["load_seconds"] > 0


def test_options_of_a_backend_make_rows_of_their_own(run, here, tiny_folder):
    specs = ("bnb-nf4", "bnb-nf4:double_quant=true")
    arguments = [part for spec in specs for part in ("--backend", spec)]

    table = run("quant", "--model", str(tiny_folder), *arguments).stdout

    assert "bnb-nf4:double_quant=true" in table
    assert "agreement" in table


def test_each_spec_of_a_backend_has_its_own_problems(run, here, tiny_folder, monkeypatch):
    from decodekit_quant_backends.bnb_nf4 import BnbNf4

    monkeypatch.setattr(BnbNf4, "problems", lambda self, device: ["no second time"] * self.double_quant)
    specs = ("bnb-nf4:double_quant=false", "bnb-nf4:double_quant=true")
    arguments = [part for spec in specs for part in ("--backend", spec)]

    listed = json.loads(run("quant", *arguments, "--list", "--json").stdout)
    measured = json.loads(run("quant", "--model", str(tiny_folder), *arguments, "--json").stdout)
    table = run("quant", *arguments, "--list").stdout

    assert listed == {specs[0]: {"problems": []}, specs[1]: {"problems": ["no second time"]}}
    assert measured.keys() == listed.keys()
    assert measured[specs[0]]["perplexity"] > 1
    assert measured[specs[1]] == listed[specs[1]]
    assert table.count("no second time") == 1


@pytest.mark.parametrize("name", ["picture.png", "picture.svg"])
def test_the_plot_is_a_file(run, here, tiny_folder, tmp_path, name):
    result = run("quant", "--model", str(tiny_folder), "--backend", "none", "--plot", str(tmp_path / name))

    assert (tmp_path / name).stat().st_size > 5000
    assert f"The plot is in {tmp_path / name}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "a.jpeg"], ".png, .svg, .pdf"),
        (["--plot", "no-such-folder/a.png"], "there is no folder"),
        (["--plot", "a.png", "--list"], "leave out one of them"),
        (["--backend", "bnb-nf5"], "Did you mean 'bnb-nf4'"),
        (["--backend", "bnb-nf4:compute_dtype=int7"], "compute_dtype='int7'"),
    ],
)
def test_wrong_arguments_are_told_with_what_is_right(run, arguments, message):
    result = run("quant", *arguments)

    assert message in " ".join((result.stderr + result.stdout).split())


def test_a_backend_that_fails_has_its_reason_in_the_row(run, here, tiny_folder, monkeypatch):
    from decodekit_quant_backends.bnb_nf4 import BnbNf4

    def convert(self, model):
        message = "it went wrong"
        raise ParameterError(message)

    monkeypatch.setattr(BnbNf4, "convert", convert)

    result = run("quant", "--model", str(tiny_folder), "--backend", "bnb-nf4")

    assert result.exit_code == 0
    assert "it went wrong" in result.stdout


def test_a_model_that_is_nowhere_ends_the_command(run, refused, here):
    assert "there is no folder './nowhere'" in refused(run("quant", "--model", "./nowhere"))


def test_a_process_of_its_own_measures(tiny_folder):
    row = MODULE._in_a_process(("none", {}), {"name_or_path": str(tiny_folder), "device_map": "cpu"})

    assert row.bytes > 1e6
    assert row.process_bytes is not None

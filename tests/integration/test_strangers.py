"""Packages of others, written against the docs alone, beside our wheels in an environment of their own.

They are built, installed, listed, checked, run, broken on purpose, and uninstalled. The environment has
the heavy libraries of this one by links, and nothing of decodekit but what is installed into it.
"""

import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from decodekit.scaffold import new_plugin

ROOT = Path(__file__).parents[2]
STRANGERS = sorted((Path(__file__).parent / "strangers").iterdir())
OURS = [ROOT / name for name in ("core", "processors", "strategies", "quant_backends")]
PROFILE = os.environ.get("DECODEKIT_TEST_PROFILE")
NAMES = {"processors": "min_k", "strategies": "stochastic_beam", "quant_backends": "ternary"}


def run(*command, status=0, **variables):
    """A command; its standard output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DECODEKIT_")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1", **variables}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A clean environment with our wheels and those of the strangers."""
    return House(tmp_path_factory.mktemp("house"))


class House:
    """An environment, and the commands in it."""

    def __init__(self, folder):
        self.folder, self.wheels, self.bin = folder, folder / "wheels", folder / "env" / "bin"
        pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
        run(*pip, "-w", self.wheels, *OURS, *STRANGERS)
        run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
        self.site = next((folder / "env" / "lib").iterdir()) / "site-packages"
        heavy = folder / "heavy"
        heavy.mkdir()
        for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            for item in Path(place).iterdir():
                if "decodekit" not in item.name and item.suffix != ".pth" and item.name != "__pycache__":
                    (heavy / item.name).symlink_to(item)
        (self.site / "heavy.pth").write_text(f"{heavy}\n")
        self.install("decodekit-processors", "decodekit-strategies", "decodekit-quant-backends")
        self.variables = {"DECODEKIT_CONFIG_DIR": str(folder / "settings")}

    def pip(self, *arguments):
        return run(sys.executable, "-m", "pip", "--python", self.bin / "python", *arguments)

    def install(self, *names):
        self.pip("install", "-q", "--no-index", "--find-links", self.wheels, *names)

    def decodekit(self, *commands):
        """The results of commands of the command line, run one after the other in one process."""
        told = run(self.bin / "python", "-c", SEVERAL, json.dumps(commands, default=str), **self.variables)
        return [(code, output) for code, output in json.loads(told.splitlines()[-1])]

    def origins(self):
        """Name -> distribution of everything that `decodekit plugins` lists."""
        ((code, told),) = self.decodekit(["plugins", "--json"])
        assert code == 0
        return origins_in(told)


def origins_in(told):
    found = json.loads(told)
    assert found["failures"] == []
    return {(kind, entry["name"]): entry["distribution"] for kind in NAMES for entry in found[kind]}


SEVERAL = """
import json, sys
from decodekit.cli import app
from typer.testing import CliRunner
results = [CliRunner().invoke(app, command) for command in json.loads(sys.argv[1])]
print(json.dumps([[result.exit_code, result.stdout] for result in results]))
"""


@pytest.fixture(scope="module")
def guests(house):
    """The environment after the strangers have moved in."""
    house.install("decodekit-min-k", "decodekit-stochastic-beam", "decodekit-ternary")
    return house


def test_strangers_are_listed_checked_and_run(guests, tiny_folder):
    few = ["--only", "P8", "--only", "P12", "--only", "P19"] if PROFILE != "thorough" else []
    some = ["--only", "S2", "--only", "S15", "--only", "S25"] if PROFILE != "thorough" else []
    options = ["--model", tiny_folder, "--json", "--seed", "3", "--max-new-tokens", "6"]
    options += ["--quant", "ternary", "--processor", "min_k:min_tokens_to_keep=40"]
    results = guests.decodekit(
        ["plugins", "--json"],
        ["check", "min_k", "--profile", "fast", "--json", *few],
        ["check", "stochastic_beam", "--profile", "fast", "--json", *some],
        ["generate", "Hi", *map(str, options), "--strategy", "stochastic_beam", "--set", "k=3"],
    )
    assert [code for code, _ in results] == [0] * 4
    listed, min_k, beam, answer = (told for _, told in results)
    origins = origins_in(listed)
    for kind, name in NAMES.items():
        assert origins[kind, name] == f"decodekit-{name.replace('_', '-')}"
    assert origins["processors", "min_p"] == "decodekit-processors"
    for report in (min_k, beam):
        assert {item["outcome"] for item in json.loads(report)[0]["results"]} <= {"passed", "skipped", "hint"}
    answer = json.loads(answer)
    assert (answer["strategy"], answer["backend"]) == ("stochastic_beam", "ternary")
    assert answer["chain"] == ["min_k(min_tokens_to_keep=40)"]
    assert answer["new_tokens"] > 0


def test_a_broken_stranger_stops_nobody_and_is_diagnosed(guests):
    module = guests.site / "decodekit_min_k.py"
    text = module.read_text()
    module.write_text("import no_such_library\n")
    try:
        results = guests.decodekit(["plugins", "--json"], ["plugins", "doctor", "--json"])
    finally:
        module.write_text(text)
    (listed, found), (diagnosed, findings) = results
    assert (listed, diagnosed) == (0, 1)
    failures = json.loads(found)["failures"]
    assert [failure["plugin"].partition(" ")[0] for failure in failures] == ["decodekit-min-k"]
    assert "ternary" in {entry["name"] for entry in json.loads(found)["quant_backends"]}
    states = {item["plugin"].partition(":")[0]: item for item in json.loads(findings)}
    assert states["decodekit-min-k"]["state"] == "missing library"
    assert states["decodekit-min-k"]["remedy"].partition("  #")[0] == "pip install no_such_library"
    assert states["decodekit-ternary"]["state"] in ("ok", "slow")


def test_strangers_move_out_without_a_trace(guests):
    guests.pip("uninstall", "-q", "-y", *(folder.name for folder in STRANGERS))
    assert not set(NAMES.items()) & set(guests.origins())


def test_the_author_s_path_takes_less_than_five_minutes(house, tmp_path):
    started = time.perf_counter()
    folder = new_plugin("processor", "my_sampler", tmp_path)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run(*pip, "-w", house.wheels, folder)
    house.install("decodekit-my-sampler")
    tests = [house.bin / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", folder]
    told = run(*tests, DECODEKIT_TEST_PROFILE="fast")
    house.pip("uninstall", "-q", "-y", "decodekit-my-sampler")
    assert "passed" in told
    assert "failed" not in told
    assert time.perf_counter() - started < 300

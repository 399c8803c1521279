import json
import re

import attrs
import decodekit
import pytest
from decodekit import Processor, param
from decodekit.registry import Registry


@pytest.fixture
def fresh(monkeypatch):
    """A registry of this test alone, which the tables show."""
    registry = Registry()
    monkeypatch.setattr("decodekit.cli.tables.registry", lambda: registry)
    monkeypatch.setattr("decodekit.cli.plugins.registry", lambda: registry)
    return registry


@pytest.fixture
def spicy(fresh):
    """A processor of this test, registered in the fresh registry."""

    @fresh.register
    @attrs.frozen
    class Spicy(Processor):
        """Multiply by ``heat``."""

        NAME = "spicy"
        heat: float = param(2.5, range="(0, 9]", help="How hot.")

        def __call__(self, logits, history):
            return logits * self.heat

    return Spicy


@pytest.mark.parametrize("command", [["plugins"], ["plugins", "processors"], ["generate", "--help"]])
def test_parameters_of_a_plugin_appear_by_themselves(run, spicy, command):
    result = run(*command)

    assert result.exit_code == 0
    assert re.search(r"spicy +Multiply by heat\. +\[this process\]", result.stdout)
    assert re.search(r"heat +float in \(0, 9\]; default 2\.5\. How hot\.", result.stdout)


def test_plugins_of_one_kind_only(run, spicy):
    assert "spicy" not in run("plugins", "strategies").stdout


def test_plugins_as_json(run, spicy):
    found = json.loads(run("plugins", "--json").stdout)

    (entry,) = [entry for entry in found["processors"] if entry["name"] == "spicy"]
    assert entry["parameters"] == [
        {"name": "heat", "type": "float", "allowed": "float in (0, 9]", "default": 2.5, "help": "How hot."}
    ]
    (nf4,) = [entry for entry in found["quant_backends"] if entry["name"] == "bnb-nf4"]
    assert (nf4["distribution"], nf4["version"]) == ("decodekit-quant-backends", decodekit.__version__)
    assert found["failures"] == []


def test_plugins_tells_what_is_broken_claimed_twice_and_kept_out(run, install_plugin, mild, fresh):
    install_plugin("kit-broken", "import no_such_thing")
    install_plugin("kit-one", mild())
    install_plugin("kit-two", mild())

    short, long = run("plugins"), run("plugins", "--verbose")
    data = json.loads(run("plugins", "--json").stdout)

    assert re.search(r"Not loaded: kit-broken 1\.2 .*No module named 'no_such_thing'", short.stdout)
    assert re.search(r"'mild' is claimed by kit_one\.Mild .* and kit_two\.Mild", short.stdout)
    assert "Kept out by DECODEKIT_DISABLED_PLUGINS: decodekit-processors:" in short.stdout
    assert "Traceback" not in short.stdout
    assert "Traceback" in long.stdout
    assert "Traceback" in data["failures"][0]["traceback"]
    assert len(data["disabled"]) == 3

import json
import re

import attrs
import decodekit
import pytest
from decodekit import Processor, param
from decodekit.doctor import Finding
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


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings and an allow-list of this test alone."""
    monkeypatch.setenv("DECODEKIT_CONFIG_DIR", str(tmp_path / "settings"))
    return tmp_path / "settings"


def test_disable_and_enable_persist_and_import_nothing(run, install_plugin, settings, refused):
    install_plugin("kit-bad", "raise SystemExit('it ran')")

    assert "kit-bad is kept out" in run("plugins", "disable", "Kit_Bad").stdout.replace("Kit_Bad", "kit-bad")
    assert json.loads((settings / "plugins.json").read_text()) == {"disabled": ["kit-bad"]}
    assert "kit-bad:plug" in Registry().disabled
    assert Registry().failures == []
    assert run("plugins", "enable", "kit-bad").exit_code == 0
    assert "it ran" in Registry().failures[0].reason
    assert "Installed: decodekit-processors" in refused(run("plugins", "disable", "kit-bat"))
    assert "Did you mean 'kit-bad'" in refused(run("plugins", "disable", "kit-bat"))
    assert "'kit-bad' is not disabled. Disabled: nothing" in refused(run("plugins", "enable", "kit-bad"))


def test_allow_starts_a_list_that_counts(run, install_plugin, mild, settings, refused):
    install_plugin("kit-one", mild())
    install_plugin("kit-two", mild("other", "Other"))

    assert "1 allowed in" in run("plugins", "allow", "kit-one").stdout
    registry = Registry()

    assert list(registry.entries("processors")) == ["mild"]
    assert ["kit-two" in str(failure) for failure in registry.failures] == [True]
    assert run("plugins", "allow", "--all").exit_code == 0
    assert list(Registry().entries("processors")) == ["mild", "other"]
    assert "name what to allow" in refused(run("plugins", "allow"))
    assert "no custom_generate/generate.py" in refused(run("plugins", "allow", "--folder", settings))


def test_the_doctor_says_it_in_words_and_as_json(run, monkeypatch):
    findings = [
        Finding("kit-a:plug", "ok", names=("processors/a",)),
        Finding("kit-b:plug", "hangs", "its import takes over 20 s", "decodekit plugins disable kit-b"),
    ]

    def diagnose(seconds, progress):
        for finding in findings:
            progress(finding)
        return findings

    monkeypatch.setattr("decodekit.cli.plugins.diagnose", diagnose)
    words, data = run("plugins", "doctor"), run("plugins", "doctor", "--json")

    assert words.exit_code == data.exit_code == 1
    assert re.search(r"hangs +kit-b:plug\n +its import takes over 20 s\n +decodekit plugins", words.stdout)
    assert [item["state"] for item in json.loads(data.stdout)] == ["ok", "hangs"]
    del findings[1]
    assert run("plugins", "doctor").exit_code == 0

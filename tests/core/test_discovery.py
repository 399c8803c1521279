"""Discovery: every way in which an installed plugin can be broken is found, and stops no other."""

import sys

import pytest
from decodekit import PluginError
from decodekit.discovery import discover

HOOK = "from decodekit import hookimpl\n@hookimpl\ndef "


def names(found):
    return [entry.name for entry in found.entries]


def test_an_installed_plugin_is_found_with_its_origin(install_plugin, mild):
    install_plugin("kit-mild", mild())
    entry = discover().entries[0]
    assert (entry.kind, entry.name, entry.distribution, entry.version) == (
        "processors",
        "mild",
        "kit-mild",
        "1.2",
    )
    assert entry.module == "kit_mild"
    assert entry.cls is sys.modules["kit_mild"].Mild
    assert entry.summary == "Keep what is mild."
    assert entry.params["heat"].range.text == "(0, inf)"
    assert str(entry) == "kit_mild.Mild (kit-mild 1.2)"


BROKEN = {
    "import": ("import no_such_library_at_all", "No module named 'no_such_library_at_all'"),
    "exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("def (", "SyntaxError"),
    "foreign marker": (
        "import pluggy\n@pluggy.HookimplMarker('pytest')\ndef register_processors(): return []",
        "register_processors is not marked with decodekit.hookimpl",
    ),
    "no marker": ("def register_strategies(): return []", "register_strategies is not marked"),
    "nothing": ("x = 1", "no function of it is marked with decodekit.hookimpl"),
    "typo": (
        HOOK + "register_procesors(): return []",
        "there is no hook 'register_procesors'. Did you mean 'register_processors'",
    ),
    "argument": (HOOK + "register_processors(config): return []", "register_processors(config)"),
    "default": (
        HOOK + "register_processors(x=None): return []",
        "register_processors takes x: a hook has",
    ),
    "keyword": (HOOK + "register_processors(*, x): return []", "register_processors takes x: a hook has"),
    "hook raises": (HOOK + "register_processors(): return 1 / 0", "ZeroDivisionError: division by zero"),
    "no return": (
        HOOK + "register_processors(): pass",
        "register_processors() returned None: it must",
    ),
    "no class": (
        HOOK + "register_processors(): return ['x']",
        "'x' is not a processor: it must be a subclass",
    ),
    "wrong kind": (
        "from decodekit import Strategy\n" + HOOK + "register_processors(): return [Strategy]",
        "is not a processor: it must be a subclass of decodekit.Processor",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_kept_with_its_reason_and_does_not_stop_the_others(install_plugin, case, mild):
    source, reason = BROKEN[case]
    install_plugin("kit-broken", source)
    install_plugin("kit-later", mild("after"))
    install_plugin("kit-a-before", mild("before"), entry_points="z = {module}")
    found = discover()
    assert names(found) == ["before", "after"]
    [failure] = found.failures
    assert (failure.distribution, failure.version, failure.entry_point) == ("kit-broken", "1.2", "plug")
    assert reason in failure.reason
    assert "\n" not in failure.reason
    assert failure.traceback.startswith("Traceback")
    assert "Traceback" not in repr(failure)


def test_a_broken_class_costs_only_itself(install_plugin, mild):
    install_plugin(
        "kit-half",
        mild()
        + """
    @attrs.frozen
    class Nameless(Processor):
        def __call__(self, logits, history):
            return logits

    @hookimpl(specname="register_processors")
    def more():
        return [Nameless, attrs.frozen(type("Hot", (Mild,), {"NAME": "hot"}))]
    """,
    )
    found = discover()
    assert sorted(names(found)) == ["hot", "mild"]
    assert [failure.reason.split(":")[0] for failure in found.failures] == ["kit_half.Nameless has no NAME"]


def test_a_broken_hook_costs_only_itself(install_plugin, mild):
    install_plugin(
        "kit-half",
        mild()
        + """
    @hookimpl
    def register_strategies():
        raise OSError("no disk")

    def register_quant_backends():
        return []
    """,
    )
    found = discover()
    assert names(found) == ["mild"]
    assert [failure.reason for failure in found.failures] == [
        "OSError: no disk",
        "register_quant_backends is not marked with decodekit.hookimpl, and no other marker counts",
    ]


@pytest.mark.parametrize("key", ["kit-mild", "Kit_Mild", "kit-mild:plug", " kit.mild:plug , other"])
def test_a_disabled_plugin_is_not_even_imported(install_plugin, monkeypatch, key):
    install_plugin("kit-mild", "raise RuntimeError('imported')")
    monkeypatch.setenv("DECODEKIT_DISABLED_PLUGINS", key, prepend=",")
    found = discover()
    assert found.failures == []
    assert "kit-mild:plug" in found.disabled
    assert "kit_mild" not in sys.modules


def test_one_entry_point_of_two_can_be_disabled(install_plugin, monkeypatch, mild):
    install_plugin("kit-mild", mild(), entry_points="other = no_such_module_of_kit\nplug = {module}")
    monkeypatch.setenv("DECODEKIT_DISABLED_PLUGINS", "kit-mild:other", prepend=",")
    found = discover()
    assert (names(found), found.failures) == (["mild"], [])


@pytest.mark.parametrize("value", ["1", "true"])
def test_strict_raises_the_first_failure(install_plugin, monkeypatch, value, mild):
    install_plugin("kit-mild", mild())
    install_plugin("kit-broken", "import no_such_library_at_all")
    monkeypatch.setenv("DECODEKIT_STRICT_PLUGINS", value)
    with pytest.raises(PluginError, match=r"kit-broken 1.2 \(plug\): ModuleNotFoundError(.|\n)*Traceback"):
        discover()


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_strict_can_be_off(install_plugin, monkeypatch, value):
    install_plugin("kit-broken", "import no_such_library_at_all")
    monkeypatch.setenv("DECODEKIT_STRICT_PLUGINS", value)
    assert len(discover().failures) == 1

"""The registry: names, clashes, specs, and what a process registers itself."""

import sys
import types
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
from decodekit import DuplicateNameError, ParameterError, PluginError, Processor, UnknownNameError, param
from decodekit.registry import Registry, drafters, processors, quant_backends, registry, strategies


def names(found):
    return list(found.entries("processors"))


def test_two_plugins_of_one_name_are_an_error_when_that_name_is_asked_for(install_plugin, mild):
    install_plugin("kit-one", mild("twice", "One"))
    install_plugin("kit-two", mild("twice", "Two"))
    install_plugin("kit-mild", mild())
    found = Registry()
    assert found.resolve("processors", "mild").heat == 1
    assert found.failures == []
    with pytest.raises(DuplicateNameError) as error:
        found.resolve("processors", "twice")
    assert "kit_one.One (kit-one 1.2), kit_two.Two (kit-two 1.2)" in str(error.value)
    assert "decodekit plugins disable" in str(error.value)


def test_an_unknown_name_has_near_misses_and_the_failures_that_may_explain_it(install_plugin, mild):
    install_plugin("kit-mild", mild())
    install_plugin("kit-broken", "import no_such_library_at_all")
    with pytest.raises(UnknownNameError) as error:
        Registry().resolve("processors", "midl")
    text = str(error.value)
    assert "there is no processor 'midl'. Did you mean 'mild'? Installed: mild." in text
    assert "Not loaded: kit-broken 1.2 (plug): ModuleNotFoundError: No module named 'no_such" in text
    assert "Kept out by DECODEKIT_DISABLED_PLUGINS: decodekit-processors:processors" in text


def test_a_name_of_another_kind_is_said(install_plugin, mild):
    install_plugin("kit-mild", mild())
    with pytest.raises(UnknownNameError, match=r"there is no strategy 'mild'.*\n'mild' is a processor"):
        Registry().resolve("strategies", "mild")


def test_hooks_are_called_once_also_by_many_threads(install_plugin, mild):
    install_plugin(
        "kit-slow",
        mild().replace("return [Mild]", "CALLS.append(1); time.sleep(0.05); return [Mild]")
        + "\n    import time\n    CALLS = []\n",
        entry_points="a = {module}\nb = {module}",
    )
    found = Registry()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: names(found), range(8)))
    assert answers == [["mild"]] * 8
    assert sys.modules["kit_slow"].CALLS == [1]


def test_a_plugin_that_asks_the_registry_while_it_loads_is_told_so(install_plugin, monkeypatch, mild):
    found = Registry()
    monkeypatch.setitem(sys.modules, "kit_holder", types.SimpleNamespace(found=found))
    install_plugin("kit-nosy", "import kit_holder\nkit_holder.found.entries('processors')")
    install_plugin("kit-mild", mild())
    assert names(found) == ["mild"]
    assert "while it was being loaded" in found.failures[0].reason


def test_nothing_is_loaded_before_the_first_question(install_plugin, mild):
    install_plugin("kit-mild", mild())
    found = Registry()
    assert "kit_mild" not in sys.modules
    assert names(found) == ["mild"]


def test_a_strict_registry_raises_at_every_question(install_plugin, monkeypatch):
    install_plugin("kit-broken", "import no_such_library_at_all")
    monkeypatch.setenv("DECODEKIT_STRICT_PLUGINS", "1")
    found = Registry()
    for _ in range(2):
        with pytest.raises(PluginError, match="kit-broken"):
            names(found)


def test_without_discovery_the_registry_is_empty(install_plugin, mild):
    install_plugin("kit-mild", mild())
    assert names(Registry(discover=False)) == []


@attrs.frozen
class Warm(Processor):
    """Warm up.

    The rest.
    """

    NAME = "warm"
    heat: float = param(2.0, range="(0, 9]", neutral=1.0, help="How warm.")

    def __call__(self, logits, history):
        return logits / self.heat


@pytest.fixture
def local():
    found = Registry(discover=False)
    assert found.register(Warm) is Warm
    return found


@pytest.mark.parametrize(
    ("spec", "heat"),
    [
        ("warm", 2),
        (("warm", {"heat": 3}), 3),
        (["warm", {"heat": "4"}], 4),
        (Warm, 2),
        ((Warm, {"heat": 5}), 5),
    ],
)
def test_a_spec_becomes_an_instance(local, spec, heat):
    assert local.resolve("processors", spec) == Warm(heat)


def test_an_instance_stays_itself(local):
    warm = Warm(3)
    assert local.resolve("processors", warm) is warm


@pytest.mark.parametrize("spec", [3, None, ("warm",), ("warm", {}, {}), (Warm(3), {"heat": 3}), len])
def test_anything_else_is_refused(local, spec):
    with pytest.raises(ParameterError, match="is not a processor: give a name, a pair"):
        local.resolve("processors", spec)


def test_a_class_or_instance_of_another_kind_is_refused(local):
    with pytest.raises(PluginError, match=r"must be a subclass of decodekit.Strategy"):
        local.resolve("strategies", Warm)
    with pytest.raises(ParameterError, match=r"an instance of decodekit.Strategy"):
        local.resolve("strategies", Warm(3))


def test_an_instance_whose_class_breaks_the_contract_is_refused(local):
    with pytest.raises(PluginError, match="has no NAME"):
        local.resolve("processors", attrs.frozen(type("Nameless", (Warm,), {"NAME": ""}))(3))


def test_parameters_of_a_spec_are_checked(local):
    with pytest.raises(ParameterError, match=r"heat=10.0 is not allowed: heat must be float in \(0, 9\]"):
        local.resolve("processors", ("warm", {"heat": 10}))
    with pytest.raises(ParameterError, match="Did you mean 'heat'"):
        local.resolve("processors", ("warm", {"hest": 1}))


def test_an_unknown_kind_is_refused(local):
    with pytest.raises(ParameterError, match=r"kind='processor' is not allowed.*Did you mean 'processors'"):
        local.entries("processor")


def test_a_function_becomes_a_processor():
    found = Registry(discover=False)

    @found.register
    def halve(logits, history, by: float = 2.0):
        """Halve the logits."""
        return logits / by

    entry = found.entry("processors", "halve")
    assert entry.cls is halve
    assert (entry.distribution, entry.version, entry.summary) == ("this process", "", "Halve the logits.")
    assert found.resolve("processors", ("halve", {"by": 4}))(8.0, None) == 2.0


def test_a_module_may_register_a_name_again_and_another_module_may_not(local):
    again = attrs.frozen(type("Warm", (Warm,), {"__module__": Warm.__module__}))
    local.register(again)
    assert local.entry("processors", "warm").cls is again
    message = r"elsewhere.Warm \(this process\) can't be registered: the processor 'warm' is .*\.Warm \(this"
    with pytest.raises(DuplicateNameError, match=message):
        local.register(attrs.frozen(type("Warm", (Warm,), {"__module__": "elsewhere"})))
    assert local.resolve("processors", "warm") == again()


def test_a_class_of_an_installed_plugin_s_name_cannot_be_registered(install_plugin, mild):
    install_plugin("kit-warm", mild("warm"))
    found = Registry()
    message = r"Warm \(this process\) can't be registered: the processor 'warm' is .*\(kit-warm 1.2\) already"
    with pytest.raises(DuplicateNameError, match=message):
        found.register(Warm)
    assert found.entry("processors", "warm").distribution == "kit-warm"


def test_a_built_in_keeps_its_name():
    def top_k(logits, history):
        return logits

    with pytest.raises(
        DuplicateNameError, match=r"'top_k' is decodekit_processors.*Give it a name of its own"
    ):
        registry().register(top_k)
    assert registry().entry("processors", "top_k").distribution == "decodekit-processors"


def test_a_plugin_may_register_as_it_is_imported(install_plugin, mild, monkeypatch):
    found = Registry()
    monkeypatch.setitem(sys.modules, "the_registry", types.SimpleNamespace(register=found.register))
    install_plugin("kit-mild", mild() + "\n    import the_registry\n    the_registry.register(Mild)\n")
    assert names(found) == ["mild"]
    assert found.failures == []


def test_a_class_that_is_both_installed_and_registered_is_one_entry(install_plugin, mild):
    install_plugin("kit-mild", mild())
    found = Registry()
    found.register(found.entry("processors", "mild").cls)
    assert found.entry("processors", "mild").distribution == "kit-mild"


def test_entries_are_sorted_by_name(local):
    local.register(attrs.frozen(type("Cold", (Warm,), {"NAME": "cold"})))
    assert names(local) == ["cold", "warm"]


@pytest.mark.parametrize("thing", [3, int, "warm", len])
def test_what_is_no_plugin_cannot_be_registered(local, thing):
    with pytest.raises(
        PluginError, match=r"can't be registered: give a function \(logits, history\) or a sub"
    ):
        local.register(thing)


def test_a_class_that_breaks_the_contract_cannot_be_registered(local):
    with pytest.raises(PluginError, match="has no NAME"):
        local.register(attrs.frozen(type("Nameless", (Warm,), {"NAME": ""})))
    assert names(local) == ["warm"]


def test_the_functions_of_the_module_ask_the_registry_of_the_process():
    assert registry() is registry()
    for function in (strategies, drafters, processors, quant_backends):
        assert function() == registry().catalogue(function.__name__)
    assert {entry.distribution for entry in processors().values()} >= {"decodekit-processors"}

"""What the registry tells of a plugin."""

import pytest
from decodekit import DuplicateNameError, UnknownNameError
from decodekit.registry import Registry


def test_a_catalogue_maps_names_to_entries_and_prints_as_a_list(install_plugin, mild):
    install_plugin("kit-one", mild("twice", "One"))
    install_plugin("kit-two", mild("twice", "Two"))
    install_plugin("kit-mild", mild())
    install_plugin("kit-broken", "import no_such_library_at_all")
    catalogue = Registry().catalogue("processors")
    assert list(catalogue) == ["mild"]
    assert catalogue["mild"].distribution == "kit-mild"
    assert repr(catalogue).splitlines() == [
        "mild(heat=1.0)  [kit-mild 1.2]",
        "    Keep what is mild.",
        "twice  claimed by kit_one.One (kit-one 1.2) and kit_two.Two (kit-two 1.2)",
        "not loaded: kit-broken 1.2 (plug): ModuleNotFoundError: No module named 'no_such_library_at_all'",
    ]
    with pytest.raises(DuplicateNameError):
        catalogue["twice"]
    with pytest.raises(UnknownNameError, match="Did you mean 'mild'"):
        catalogue["midl"]


def test_an_empty_catalogue_says_so():
    assert repr(Registry(discover=False).catalogue("strategies")) == "nothing is installed"

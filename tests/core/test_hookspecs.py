"""The hooks: one for each kind of plugin, found by their mark."""

import types

import pluggy
import pytest
from decodekit import hookimpl, hookspecs
from decodekit.contract import BASES
from decodekit.hookspecs import hooks_of


def test_each_kind_has_its_hook():
    manager = pluggy.PluginManager("decodekit")
    manager.add_hookspecs(hookspecs)
    assert set(vars(manager.hook)) - {"_plugin2hookcallers"} == {f"register_{kind}" for kind in BASES}


def test_the_functions_that_the_marker_marks_are_found_by_hook_name():
    @hookimpl
    def register_processors():
        return []

    @hookimpl(specname="register_strategies")
    def more():
        return []

    plugin = types.SimpleNamespace(register_processors=register_processors, more=more, other=len)
    assert sorted(hooks_of(plugin), key=str) == [
        ("register_processors", register_processors),
        ("register_strategies", more),
    ]


def test_an_argument_is_refused():
    @hookimpl
    def register_processors(config):
        return []

    with pytest.raises(pluggy.PluginValidationError, match="config"):
        hooks_of(types.SimpleNamespace(register_processors=register_processors))

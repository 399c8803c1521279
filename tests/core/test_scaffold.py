"""A new package has the form of ours; that it installs and conforms is tested in integration."""

import ast
import importlib
import sys
import tomllib
from pathlib import Path

import pytest
from decodekit import ParameterError
from decodekit.contract import BASES, check_class
from decodekit.scaffold import NEW_KINDS, new_plugin, plugin_files

ROOT = Path(__file__).parents[2]
BUILT_IN = {
    "processor": "processors/decodekit_processors/min_p.py",
    "strategy": "strategies/decodekit_strategies/sample.py",
    "drafter": "strategies/decodekit_strategies/drafters/prompt_lookup.py",
    "quant-backend": "quant_backends/decodekit_quant_backends/none.py",
}


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_the_class_fulfils_its_contract(kind, tmp_path, monkeypatch):
    folder = new_plugin(kind, "my_thing", tmp_path)
    monkeypatch.syspath_prepend(folder)
    try:
        plugin = importlib.import_module("decodekit_my_thing.plugin")
        registered = NEW_KINDS[kind]
        (cls,) = getattr(plugin, f"register_{registered}")()
    finally:
        for name in [name for name in sys.modules if name.startswith("decodekit_my_thing")]:
            del sys.modules[name]
    assert check_class(registered, cls).NAME == "my_thing"
    assert issubclass(cls, BASES[registered])


def form(source):
    tree = ast.parse(source)
    cls = [node for node in tree.body if isinstance(node, ast.ClassDef)][-1]
    labels = [line.partition(":")[0] for line in ast.get_docstring(cls).splitlines() if ": " in line]
    names = {ast.unparse(node.target) for node in cls.body if isinstance(node, ast.AnnAssign)}
    return {
        "decorated": [ast.unparse(item) for item in cls.decorator_list],
        "labels": {label for label in labels if label in ("Source", "Range", "Shape", "Raises")},
        "class variables": {name for name in names if name.isupper()},
        "exports": [ast.unparse(node) for node in tree.body if ast.unparse(node).startswith("__all__")] != [],
        "docstring": ast.get_docstring(tree) is not None,
    }


@pytest.mark.parametrize("kind", BUILT_IN)
def test_the_class_has_the_form_of_a_built_in(kind):
    files = dict(plugin_files(kind, "my_thing"))
    new, ours = form(files["decodekit_my_thing/my_thing.py"]), form((ROOT / BUILT_IN[kind]).read_text())
    assert new["decorated"] == ours["decorated"] == ["attrs.frozen"]
    assert new["labels"] >= ours["labels"]
    assert new["class variables"] >= ours["class variables"]
    assert new["exports"] == ours["exports"] is True
    assert new["docstring"]


def test_the_template_of_the_docs_is_what_the_command_writes():
    folder = ROOT / "docs" / "plugin_template"
    paths = [path for path in folder.rglob("*") if path.is_file() and "cache" not in str(path)]
    found = {path.relative_to(folder).as_posix(): path.read_text() for path in paths}
    assert found == dict(plugin_files("processor", "near_top"))


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_a_package_is_whole(kind):
    files = dict(plugin_files(kind, "my-thing"))
    assert not [path for path, text in files.items() if "@@" in path + text]
    project = tomllib.loads(files["pyproject.toml"])
    assert project["project"]["entry-points"]["decodekit"] == {"my_thing": "decodekit_my_thing.plugin"}
    assert {"README.md", ".github/workflows/test.yml", "tests/test_my_thing.py"} < set(files)
    for path, text in files.items():
        if path.endswith(".py"):
            compile(text, path, "exec")


@pytest.mark.parametrize("name", ["Soft", "1st", "a b", "", "-a", "a__b", "ä"])
def test_a_name_that_can_be_no_module_is_refused(name):
    with pytest.raises(ParameterError, match="must be made of lower-case words"):
        list(plugin_files("processor", name))


def test_a_name_that_is_taken_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"is taken by decodekit_processors\.min_p\.MinP"):
        new_plugin("processor", "min_p", tmp_path)
    assert list(tmp_path.iterdir()) == []

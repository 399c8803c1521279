"""One name everywhere: registry, file, test file, docs, versions and docstring labels."""

import ast
import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import decodekit
import pytest
from decodekit.registry import registry

ROOT = Path(__file__).parents[1]
KINDS = ("processors", "quant_backends", "strategies")
HOMES = {kind: (f"{kind}/decodekit_{kind}", f"tests/{kind}") for kind in KINDS}
HOMES["drafters"] = ("strategies/decodekit_strategies/drafters", "tests/strategies/drafters")
"""Where the members of a kind and their tests live; a kind may share the distribution of another."""
LABELS = {  # one of the words of each tuple
    "processors": (("Source",), ("Range",), ("Shape",), ("Keeps", "Law"), ("Raises",)),
    "strategies": (("Source",), ("Range",), ("Shape",), ("Law",), ("Raises",)),
    "drafters": (("Source",), ("Range",), ("Shape",), ("Law",), ("Raises",)),
    "quant_backends": (("Source",), ("Range",), ("Law", "Keeps"), ("Raises",), ("Needs",)),
}
VERSION = "0.1.0"


def built_in(kind):
    """The entries of our own packages, in a list: two of one name are two."""
    own = HOMES[kind][0].split("/")[1].replace("_", "-")
    return [
        entry for same in registry().entries(kind).values() for entry in same if entry.distribution == own
    ]


def wrong_names(root, kind, entries):
    """File name = registry name = test file name = heading in the catalogue, both ways."""
    home, tests = HOMES[kind]
    package = home.partition("/")[2].replace("/", ".")
    catalogue = root / "docs" / "catalogue.md"
    headings = re.findall(r"^## (\S+)$", catalogue.read_text(), re.M) if catalogue.exists() else []
    for entry in entries:
        stem = entry.name.replace("-", "_")
        if entry.module != f"{package}.{stem}":
            yield f"{entry.name} is defined in {entry.module}"
        if not (root / tests / f"test_{stem}.py").exists():
            yield f"{entry.name} has no {tests}/test_{stem}.py"
        if headings.count(entry.name) != 1:
            yield f"{entry.name} has {headings.count(entry.name)} headings in docs/catalogue.md"
    known = {entry.name.replace("-", "_") for entry in entries}
    for path in sorted((root / home).glob("[!_]*.py")):
        if path.stem != "plugin" and path.stem not in known:
            yield f"{path.name} registers nothing of its name"


def missing_labels(kind, entries):
    for entry in entries:
        for words in LABELS[kind]:
            if not re.search(rf"^\s*({'|'.join(words)}): *\S", entry.cls.__doc__ or "", re.M):
                yield f"{entry.name} has no '{words[0]}:'"


def wrong_versions(root):
    """One version over five distributions, and == between them."""
    source = ast.parse((root / "core/decodekit/__init__.py").read_text())
    [version] = [
        node.value.value
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    for name in (".", "core", *KINDS):
        project = tomllib.loads((root / name / "pyproject.toml").read_text())["project"]
        if project["version"] != version:
            yield f"{project['name']} is {project['version']}, decodekit.__version__ is {version}"
        extras = project.get("optional-dependencies", {}).values()
        for need in [*project["dependencies"], *(need for extra in extras for need in extra)]:
            if need.startswith("decodekit") and not need.endswith(f"=={version}"):
                yield f"{project['name']} needs {need}"


@pytest.mark.parametrize("kind", HOMES)
def test_one_name_everywhere(kind):
    assert list(wrong_names(ROOT, kind, built_in(kind))) == []


@pytest.mark.parametrize("kind", HOMES)
def test_every_docstring_has_its_labels(kind):
    assert list(missing_labels(kind, built_in(kind))) == []


def test_one_version():
    assert list(wrong_versions(ROOT)) == []


def test_every_kind_has_members_and_nothing_failed_to_load():
    assert all(built_in(kind) for kind in HOMES)
    assert [failure for failure in registry().failures if failure.distribution.startswith("decodekit-")] == []


@pytest.fixture
def house(tmp_path):
    """A small tree that keeps the rules: one backend, five distributions."""
    plant = {
        "quant_backends/decodekit_quant_backends/bnb_nf4.py": "",
        "quant_backends/decodekit_quant_backends/_shared.py": "",
        "quant_backends/decodekit_quant_backends/plugin.py": "",
        "tests/quant_backends/test_bnb_nf4.py": "",
        "docs/catalogue.md": "# Catalogue\n\n## bnb-nf4\n\n### bnb-nf4 in depth\n",
        "core/decodekit/__init__.py": f'__version__ = "{VERSION}"\n',
    }
    for name in (".", "core", *KINDS):
        needs = f'["torch>=2", "decodekit-core=={VERSION}"]'
        plant[f"{name}/pyproject.toml"] = (
            f'[project]\nname = "{name}"\nversion = "{VERSION}"\ndependencies = {needs}'
        )
    for name, text in plant.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def nf4(doc=None, module="decodekit_quant_backends.bnb_nf4"):
    return SimpleNamespace(name="bnb-nf4", module=module, cls=SimpleNamespace(__doc__=doc))


def found(house, *entries):
    return list(wrong_names(house, "quant_backends", entries))


def test_a_house_that_keeps_the_rules_passes(house):
    assert found(house, nf4()) == []
    assert list(wrong_versions(house)) == []


def test_a_wrong_name_is_found(house):
    assert found(house, nf4(module="decodekit_quant_backends.four_bit")) == [
        "bnb-nf4 is defined in decodekit_quant_backends.four_bit"
    ]
    (house / "tests/quant_backends/test_bnb_nf4.py").unlink()
    (house / "docs/catalogue.md").write_text("# bnb-nf4\n")
    assert found(house, nf4()) == [
        "bnb-nf4 has no tests/quant_backends/test_bnb_nf4.py",
        "bnb-nf4 has 0 headings in docs/catalogue.md",
    ]


def test_a_file_that_registers_nothing_is_found(house):
    assert found(house) == ["bnb_nf4.py registers nothing of its name"]


@pytest.mark.parametrize("label", ["Source", "Range", "Law", "Raises", "Needs"])
def test_a_missing_label_is_found(label):
    doc = "\n    ".join(["A backend.", "Source: a", "Range: b", "Law: c", "Raises: d", "Needs: e"])
    assert list(missing_labels("quant_backends", [nf4(doc)])) == []
    assert list(missing_labels("quant_backends", [nf4(doc.replace(label, "See"))])) == [
        f"bnb-nf4 has no '{label}:'"
    ]


def test_another_version_or_a_loose_pin_is_found(house):
    path = house / "processors/pyproject.toml"
    text = path.read_text()
    path.write_text(text.replace(f'version = "{VERSION}"', 'version = "9"'))
    assert list(wrong_versions(house)) == [f"processors is 9, decodekit.__version__ is {VERSION}"]
    path.write_text(text.replace("==", ">="))
    assert list(wrong_versions(house)) == [f"processors needs decodekit-core>={VERSION}"]
    path.write_text(text)
    (house / "core/decodekit/__init__.py").write_text('__version__ = "0.2.0"')
    assert len(list(wrong_versions(house))) == 10


def test_the_version_of_the_code_is_the_version_of_the_files():
    assert decodekit.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert sys.modules["decodekit"].__file__ == str(ROOT / "core" / "decodekit" / "__init__.py")

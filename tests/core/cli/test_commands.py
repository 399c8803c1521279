import re
import signal
import subprocess
import sys

import decodekit
import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "gredy"], "'gredy'. Did you mean 'greedy'"),
        (["--processor", "min_q"], "'min_q'. Did you mean 'min_p'"),
        (["--processor", "min_p:min_p=2"], "min_p=2.0 is not allowed: min_p must be float in [0, 1]"),
        (["--processor", "min_p:0.1"], "'min_p:0.1' is not of the form NAME:key=value"),
        (["--quant", "bnb-nf5"], "'bnb-nf5'. Did you mean 'bnb-nf4'"),
        (["--set", "temperature"], "'temperature' is not of the form name=value"),
        (["--set", "seed=3"], "use --seed"),
        (
            ["--set", "temperatur=3"],
            "--set temperatur is an argument of neither generate nor the strategy. Did you mean",
        ),
        (["--set", "compile=true"], "use --compile"),
        (["--set", "assistant_model=foo"], "it is an object; decodekit.generate"),
        (["--set", "streamer=1"], "it is an object; decodekit.generate"),
        (["--system", "be mild", "--no-chat"], "--system has no place"),
        (["--file", __file__], "there are two prompts"),
        (["--dtype", "float23"], "dtype='float23'"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(generate, arguments, message, refused):
    assert message in refused(generate("hello", *arguments))


@pytest.mark.parametrize(("option", "value"), [("--seed", "abc"), ("--max-new-tokens", "-1")])
def test_the_value_of_an_option_that_can_not_be_read_is_named(generate, option, value):
    result = generate("hello", option, value)
    assert result.exit_code == 2
    assert re.search(f"Invalid value for '{option}': '?{value}'? is not allowed: input should", result.stderr)


def test_a_missing_model_is_one_line_and_exit_code_2(run, refused):
    assert "no folder '/no/such'" in refused(run("generate", "hello", "--model", "/no/such"))


@pytest.mark.parametrize(("arguments", "env"), [(["--debug"], {}), ([], {"DECODEKIT_DEBUG": "1"})])
def test_the_traceback_is_shown_on_request(run, arguments, env):
    result = run(*arguments, "generate", "hello", "--strategy", "gredy", env=env)

    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: there is no strategy 'gredy'")


def test_ctrl_c_while_loading_leaves_quietly(generate, monkeypatch):
    def load_forever(*args, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("decodekit.cli.generate.load", load_forever)

    result = generate("hello")

    assert (result.exit_code, result.output) == (130, "")


def test_a_real_ctrl_c_stops_the_real_command(tiny_folder):
    command = [sys.executable, "-m", "decodekit", "generate", "hello", "--model", str(tiny_folder)]
    command += ["--max-new-tokens", "9999", "--processor", "min_new_tokens:min_new_tokens=9999"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    first = process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert (first + rest).endswith(b"\n")
    assert re.fullmatch(rb"[1-9]\d* tokens?, .*, interrupted\n", errors)


def test_version_is_that_of_the_package(run):
    assert run("--version").stdout == f"decodekit {decodekit.__version__}\n"

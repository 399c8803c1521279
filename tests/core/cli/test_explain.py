import json

import pytest


def test_a_chain_is_explained_in_its_order(run):
    result = run("explain", "repetition_penalty=1.1 > top_k=50 > top_p=1")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "1.  repetition_penalty=1.1  [penalty]"
    assert lines[3] == "2.  top_k=50  [truncation]"
    assert "    dropped: changes nothing at these values" in lines
    assert lines[-1] == "A draw looks at what is left."


def test_a_configuration_is_explained_with_the_defaults_of_a_call(run):
    result = run("explain", "--set", "temperature=0.7", "--set", "top_p=0.9", "--json")
    told = json.loads(result.stdout)
    assert [step["text"] for step in told["steps"]] == ["temperature=0.7", "top_k=50", "top_p=0.9"]
    assert told["steps"][0]["microseconds"] is None


def test_a_chain_is_measured_on_demand(run):
    result = run("explain", "top_k=5", "--vocab-size", 200, "--rows", 2)
    assert "µs up to here" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a chain, or fields of the configuration with --set, and not both"),
        (["top_k", "--set", "top_k=3"], "and not both"),
        (["topk=3"], "Did you mean 'top_k'"),
        (["top_k=3 > top_n_sigma"], "contradict each other in this order"),
        (["--set", "top_kk=3"], "Did you mean 'top_k'"),
        (["top_k=-3"], "top_k must be int in [0, inf)"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(run, refused, arguments, message):
    assert message in refused(run("explain", *arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--chain", "repetition_penalty=1.2 > top_k=5"],
        ["--processor", "repetition_penalty=1.2 > top_k=5"],
        ["--processor", "repetition_penalty=1.2", "--processor", "top_k:top_k=5"],
    ],
    ids=str,
)
def test_generate_takes_the_text_of_a_chain(generate, arguments):
    result = generate("a", "--no-chat", "--max-new-tokens", 2, "--json", *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["chain"] == ["repetition_penalty=1.2 > top_k=5"]


def test_a_chain_is_given_once(generate, refused):
    line = refused(generate("a", "--chain", "top_k", "--processor", "top_k"))
    assert "--chain and --processor are both the whole chain" in line

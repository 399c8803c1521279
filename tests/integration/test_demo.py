"""The main job on the real model, by the commands that ``make demo`` runs."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKE = subprocess.run(
    ["make", "--dry-run", "--silent", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout
COMMANDS = [shlex.split(line)[1:] for line in MAKE.splitlines() if line.startswith(".venv/bin/decodekit ")]


def run(arguments, tokens=32):
    """Run the command with JSON output and fewer tokens, in a process of its own."""
    command = [sys.executable, "-m", "decodekit", *arguments, "--json", "--max-new-tokens", str(tokens)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250)
    assert re.sub(r"(?m)^The first start converts.*\n", "", result.stderr).strip() == ""
    return json.loads(result.stdout)


def test_the_demo_is_three_commands():
    assert [command[0] for command in COMMANDS] == ["generate"] * 3


@pytest.mark.real_model
def test_greedy_streams_an_answer_that_knows_the_sky():
    found = run(COMMANDS[0])

    assert re.search("light|atmosphere|scatter", found["text"])
    assert (found["strategy"], found["chain"], found["backend"]) == ("greedy", ["none"], "none")
    assert (found["new_tokens"], found["finish_reason"]) == (32, "length")
    assert found["model_bytes"] == 538_060_288  # 134.5 million float32 values and the rotary frequencies


@pytest.mark.real_model
def test_sampling_is_seeded_and_its_chain_is_shown_in_order():
    first, again = run(COMMANDS[1]), run(COMMANDS[1], tokens=8)

    assert first["tokens"][:8] == again["tokens"]
    assert [step.split("=")[0] for step in first["chain"][0].split(" > ")] == [
        "temperature",
        "top_k",
        "top_p",
        "min_p",
    ]


@pytest.mark.real_model
def test_the_four_bit_model_answers_with_a_third_of_the_bytes():
    found = run(COMMANDS[2])

    assert found["backend"] == "bnb-nf4"
    assert found["model_bytes"] < 538_060_288 / 3
    assert re.search("light|atmosphere|sky|blue", found["text"])

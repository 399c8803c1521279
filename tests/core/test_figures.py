import json
import subprocess
import sys

import pytest
from decodekit.figures import measure, sample_text

PROGRAM = """
import json, sys
from decodekit.figures import measure

figures = measure(quant=sys.argv[1], device_map="cpu")
print(json.dumps([figures.bytes, figures.process_bytes]))
"""


def test_the_text_comes_with_the_package():
    assert 400 < len(sample_text().split()) < 800


def test_figures_of_a_model_and_its_agreement_with_itself(tiny_folder):
    plain = measure(tiny_folder)
    again = measure(tiny_folder, reference=plain.argmax)

    assert again.agreement == 1.0
    assert plain.agreement is None
    assert again.perplexity == plain.perplexity
    assert (plain.backend, plain.options) == ("none", "")


def test_options_are_named(tiny_folder):
    assert measure(tiny_folder, "bnb-int8", threshold=0.0).options == "threshold=0.0"
    assert measure(tiny_folder, ("bnb-int8", {"threshold": 0.0})).options == "threshold=0.0"


@pytest.mark.real_model
def test_the_process_grows_by_the_bytes_of_the_quantized_model():
    command = [sys.executable, "-c", PROGRAM, "torchao-int8"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)

    model, process = json.loads(run.stdout.splitlines()[-1])

    # what a forward pass of 256 tokens leaves in caches of kernels, and the threads of a first one
    assert model < process < model + 180e6 < 538e6

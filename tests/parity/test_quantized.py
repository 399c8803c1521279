"""Quantized models decode as they do in transformers."""

import decodekit as dk
import pytest
import torch
from decodekit.registry import registry

ARGUMENTS = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "top_p": 0.9, "temperature": 0.8},
    "beams": {"do_sample": False, "num_beams": 3, "length_penalty": 0.5},
    "assisted": {"do_sample": False, "prompt_lookup_num_tokens": 3},
}


@pytest.fixture(scope="module", params=sorted(registry().entries("quant_backends")))
def quantized(request, tiny_folder):
    """The tiny model behind one backend, and its tokenizer."""
    return dk.load(tiny_folder, quant=request.param)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_quantized_model_gives_the_tokens_of_transformers(quantized, name):
    model, tokenizer = quantized
    texts = ["one two one two one"] if name == "assisted" else ["Once upon a time", "Hi"]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    arguments = {**inputs, **ARGUMENTS[name], "max_new_tokens": 6, "eos_token_id": None}
    torch.manual_seed(1)
    wanted = model.generate(**arguments)
    torch.manual_seed(1)

    assert torch.equal(dk.generate(model, **arguments), wanted)

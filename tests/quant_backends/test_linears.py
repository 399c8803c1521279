"""What the backends share: modules that stay unquantized are there."""

import decodekit as dk
import pytest
import torch
from decodekit import ParameterError
from decodekit_quant_backends._linears import check_skipped

SKIPPING = {
    name: entry.cls
    for name, entry in dk.quant_backends().items()
    if "skip_modules" in dk.params_of(entry.cls)
}


@pytest.mark.parametrize("name", SKIPPING)
def test_a_name_of_no_module_is_refused_by_every_backend(name, tiny_folder):
    problems = SKIPPING[name]().problems(torch.device("cpu"))
    if problems:
        pytest.skip(problems[0])
    with pytest.raises(ParameterError, match=r"skip_modules names 'q_prj', .* did you mean 'q_proj'"):
        dk.load(tiny_folder, quant=(name, {"skip_modules": ["o_proj", "q_prj"]}), device_map="cpu")


@pytest.mark.parametrize("part", ["lm_head", "q_proj", "layers.0", "self_attn.q_proj", "model.layers.1.mlp"])
def test_whole_parts_of_a_dotted_name_are_found(part, tiny_folder):
    check_skipped(dk.load(tiny_folder)[0], (part,))


@pytest.mark.parametrize("part", ["proj", "q_", "layers.2", "0.self", "zzz", ""])
def test_other_texts_are_none(part, tiny_folder):
    with pytest.raises(ParameterError, match=r"has no such module: (did you mean .*\? G|g)ive whole parts"):
        check_skipped(dk.load(tiny_folder)[0], (part,))

import json
import shutil

import pytest
import torch
from decodekit import CapabilityError, MissingLibraryError
from decodekit.load import load
from decodekit.prequantized import METHODS, Method, check_prequantized
from safetensors.torch import load_file, save_file
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


def quantized_folder(tiny_folder, tmp_path, **quantization):
    """The tiny model's folder with a configuration that says that it is quantized."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    return folder


def test_every_method_of_transformers_is_known():
    theirs = {name.removesuffix("_4bit").removesuffix("_8bit") for name in AUTO_QUANTIZER_MAPPING}

    assert theirs - {"gguf"} == set(METHODS)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.requires])
def test_a_missing_library_is_named_with_its_install_line(method, monkeypatch):
    library, requirement = next(iter(METHODS[method].requires.items()))
    monkeypatch.setattr("decodekit.prequantized._is_installed", lambda name: name != library)

    with pytest.raises(MissingLibraryError) as caught:
        check_prequantized("org/name", {"quant_method": method}, "none", None, CUDA)

    assert f"org/name is quantized with {method}" in str(caught.value)
    assert f"pip install '{requirement}'" in str(caught.value)


def test_load_names_the_library_before_it_reads_a_weight(tiny_folder, tmp_path):
    folder = quantized_folder(tiny_folder, tmp_path, quant_method="gptq", bits=4)
    (folder / "model.safetensors").unlink()

    with pytest.raises(MissingLibraryError, match=r"quantized with gptq.*pip install 'gptqmodel"):
        load(folder)


def test_a_library_in_a_namespace_that_is_missing_too_is_missing(monkeypatch):
    monkeypatch.setitem(METHODS, "quanto", Method({"no_such.thing": "no-such-thing>=1"}))

    with pytest.raises(MissingLibraryError, match="pip install 'no-such-thing>=1'"):
        check_prequantized("org/name", {"quant_method": "quanto"}, "none", None, CPU)


@pytest.mark.parametrize("method", [name for name, item in METHODS.items() if item.devices == ("cuda",)])
def test_a_method_for_gpus_is_refused_on_a_cpu(method, monkeypatch):
    monkeypatch.setattr("decodekit.prequantized._is_installed", lambda name: True)

    with pytest.raises(CapabilityError, match=f"{method}, which runs on cuda and not on cpu"):
        check_prequantized("org/name", {"quant_method": method}, "none", None, CPU)


def test_an_unknown_method_is_named_with_the_nearest(tiny_folder, tmp_path):
    folder = quantized_folder(tiny_folder, tmp_path, quant_method="gptq2")

    with pytest.raises(CapabilityError, match=r"'gptq2'.*Did you mean 'gptq'"):
        load(folder)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_another_request_loses_against_the_checkpoint(tiny_folder, tmp_path, method):
    folder = quantized_folder(tiny_folder, tmp_path, quant_method=method, bits=4)

    message = f"with {method}, and its own configuration wins: quant='bnb-nf4' .* Leave quant out"
    with pytest.raises(CapabilityError, match=message):
        load(folder, quant="bnb-nf4")


def test_blocks_of_float8_are_loaded_without_any_library(tiny_folder, tmp_path):
    folder = quantized_folder(tiny_folder, tmp_path, quant_method="fp8", weight_block_size=[64, 128])
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if "proj" in name]:
        weights |= eight_bits(name, weights[name])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokens = torch.arange(18).view(2, 9)

    with torch.inference_mode():
        logits, original = (load(item)[0](tokens).logits.float() for item in (folder, tiny_folder))

    assert 0.001 < (logits - original).norm() / original.norm() < 0.2


def eight_bits(name, weight):
    """A weight in float8 with one scale a block of 64 x 128, as such checkpoints hold it."""
    rows, columns = weight.shape[0] // 64, weight.shape[1] // 128
    blocks = weight.view(rows, 64, columns, 128).transpose(1, 2)
    scale = blocks.abs().amax(dim=(2, 3)) / 448
    values = (blocks / scale[:, :, None, None]).transpose(1, 2).reshape(weight.shape)
    return {name: values.to(torch.float8_e4m3fn), f"{name}_scale_inv": scale}

import pytest
import torch
from decodekit import ParameterError
from decodekit.load import load, model_bytes
from decodekit.testing import quant_checks
from decodekit_quant_backends.none import NoQuantization
from transformers import LlamaForCausalLM

from tests.quant_backends.strategies import STRATEGIES

CHECKS = quant_checks(NoQuantization, strategies=STRATEGIES)


@pytest.mark.parametrize("check", [body for _, body in CHECKS], ids=[name for name, _ in CHECKS])
def test_it_keeps_the_contract_and_its_laws(check):
    check()


def test_the_logits_are_those_of_the_model_bit_for_bit(tiny_folder, logits_of):
    loaded, _ = load(tiny_folder, quant="none")

    assert torch.equal(logits_of(loaded), logits_of(LlamaForCausalLM.from_pretrained(tiny_folder)))


def test_bytes_are_those_of_the_file_without_its_header(tiny_folder):
    loaded, _ = load(tiny_folder, quant=NoQuantization())
    buffers = sum(buffer.nbytes for buffer in {id(b): b for b in loaded.buffers()}.values())

    in_file = (tiny_folder / "model.safetensors").stat().st_size

    assert 0 < in_file - (model_bytes(loaded) - buffers) < 4096


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_dtype_is_the_one_asked_for(tiny_folder, dtype):
    assert load(tiny_folder, dtype=dtype)[0].dtype == torch.bfloat16


def test_it_asks_nothing_of_from_pretrained_or_of_the_machine():
    assert NoQuantization().load_kwargs(torch.float32, torch.device("cpu")) == {}
    assert NoQuantization().problems(torch.device("cpu")) == []


def test_an_option_is_refused_by_name(tiny_folder):
    with pytest.raises(ParameterError, match="'double_quant'"):
        load(tiny_folder, quant="none", double_quant=True)

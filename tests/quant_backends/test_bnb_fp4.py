import pytest
import torch
from decodekit import ParameterError
from decodekit.load import load, model_bytes
from decodekit.testing import quant_checks
from decodekit_quant_backends.bnb_fp4 import BnbFp4

from tests.quant_backends.strategies import STRATEGIES

CHECKS = quant_checks(BnbFp4, strategies=STRATEGIES)


@pytest.mark.parametrize("check", [body for _, body in CHECKS], ids=[name for name, _ in CHECKS])
def test_it_keeps_the_contract_and_its_laws(check):
    check()


def test_every_option_reaches_transformers():
    backend = BnbFp4(
        compute_dtype="float32", double_quant=True, storage_dtype="bfloat16", skip_modules=("o_proj",)
    )

    config = backend.load_kwargs(torch.bfloat16, torch.device("cpu"))["quantization_config"]

    assert (config.load_in_4bit, config.bnb_4bit_quant_type) == (True, "fp4")
    assert (config.bnb_4bit_compute_dtype, config.bnb_4bit_quant_storage) == (torch.float32, torch.bfloat16)
    assert config.bnb_4bit_use_double_quant is True
    assert config.llm_int8_skip_modules == ["lm_head", "o_proj"]


def test_logits_stay_within_a_bound_and_are_further_than_those_of_nf4(tiny_folder, distance):
    fp4, nf4 = (distance(load(tiny_folder, quant=quant)[0]) for quant in ("bnb-fp4", "bnb-nf4"))

    assert nf4 < fp4 < 0.5  # the reason why nf4 is the usual choice


def test_the_forward_is_that_of_the_rounded_weights(tiny_folder, logits_of):
    rounded = load(tiny_folder, quant="bnb-fp4")[0].dequantize()
    expected = logits_of(rounded)

    actual = logits_of(load(tiny_folder, quant="bnb-fp4")[0])

    assert (actual - expected).norm() / expected.norm() < 0.03  # products in bfloat16 on some CPUs


def test_the_forward_is_deterministic(tiny_folder, logits_of):
    model, _ = load(tiny_folder, quant=BnbFp4())

    assert torch.equal(logits_of(model), logits_of(model))


def test_the_model_is_smaller(tiny_folder):
    plain, quantized = (model_bytes(load(tiny_folder, quant=quant)[0]) for quant in ("none", "bnb-fp4"))

    assert quantized < plain / 4


def test_a_wrong_option_is_named(tiny_folder):
    with pytest.raises(ParameterError, match="Did you mean 'storage_dtype'"):
        load(tiny_folder, quant="bnb-fp4", storage_type="uint8")


@pytest.mark.cuda
def test_it_runs_on_a_gpu(tiny_folder, cuda, distance):
    model, _ = load(tiny_folder, quant="bnb-fp4", device_map={"": cuda})

    assert distance(model) < 0.5

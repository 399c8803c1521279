import pytest
import torch
from decodekit import ParameterError
from decodekit.load import load
from decodekit.testing import quant_checks
from decodekit_quant_backends.torchao_int8_dynamic import TorchaoInt8Dynamic

from tests.quant_backends.strategies import STRATEGIES

CHECKS = quant_checks(TorchaoInt8Dynamic, strategies=STRATEGIES)


@pytest.mark.parametrize("check", [body for _, body in CHECKS], ids=[name for name, _ in CHECKS])
def test_it_keeps_the_contract_and_its_laws(check):
    check()


def test_the_configuration_leaves_the_process_as_it_is():
    backend = TorchaoInt8Dynamic(skip_modules=("o_proj",))

    config = backend.load_kwargs(torch.float32, torch.device("cpu"))["quantization_config"]

    assert type(config.quant_type).__name__ == "Int8DynamicActivationInt8WeightConfig"
    assert config.quant_type.set_inductor_config is False
    assert config.modules_to_not_convert == ["lm_head", r"(.*\.)?o_proj"]


def test_rounded_activations_cost_more_than_rounded_weights_alone(tiny_folder, distance):
    weights, both = (
        distance(load(tiny_folder, quant=quant)[0]) for quant in ("torchao-int8", "torchao-int8-dynamic")
    )

    assert weights < both < 0.06


def test_a_token_is_rounded_by_its_own_scale(tiny_folder, logits_of):
    model, _ = load(tiny_folder, quant="torchao-int8-dynamic")
    both = logits_of(model)

    with torch.inference_mode():
        alone = model(torch.arange(9)[None]).logits

    assert torch.allclose(both[:1], alone, atol=1e-4)


def test_a_wrong_option_is_named(tiny_folder):
    with pytest.raises(ParameterError, match="Did you mean 'skip_modules'"):
        load(tiny_folder, quant="torchao-int8-dynamic", skip_module="o_proj")


@pytest.mark.cuda
def test_it_runs_on_a_gpu(tiny_folder, cuda, distance):
    model, _ = load(tiny_folder, quant="torchao-int8-dynamic", device_map={"": cuda})

    assert distance(model) < 0.06

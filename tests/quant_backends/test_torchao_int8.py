import pytest
import torch
from decodekit import ParameterError
from decodekit.load import load, model_bytes
from decodekit.testing import quant_checks
from decodekit_quant_backends.torchao_int8 import TorchaoInt8

from tests.quant_backends.strategies import STRATEGIES

CHECKS = quant_checks(TorchaoInt8, strategies=STRATEGIES)


@pytest.mark.parametrize("check", [body for _, body in CHECKS], ids=[name for name, _ in CHECKS])
def test_it_keeps_the_contract_and_its_laws(check):
    check()


def quant_type(backend):
    return backend.load_kwargs(torch.float32, torch.device("cpu"))["quantization_config"].quant_type


def test_the_configuration_has_a_scale_a_row_and_leaves_the_process_as_it_is():
    from torchao.quantization import PerRow

    assert isinstance(quant_type(TorchaoInt8()).granularity, PerRow)
    assert quant_type(TorchaoInt8()).set_inductor_config is False


def test_weights_are_off_by_half_a_step_of_their_row_at_most(tiny_folder):
    plain, quantized = (load(tiny_folder, quant=quant)[0] for quant in ("none", "torchao-int8"))
    exact, rounded = (model.model.layers[0].mlp.up_proj.weight.detach() for model in (plain, quantized))

    error = (rounded.dequantize() - exact).abs()

    assert (error <= exact.abs().amax(dim=1, keepdim=True) / 127 * 0.51).all()


def test_a_linear_weight_takes_eight_bits_and_its_share_of_a_row(tiny_folder, distance):
    plain, quantized = (load(tiny_folder, quant=quant)[0] for quant in ("none", "torchao-int8"))
    weights = sum(p.numel() for n, p in plain.named_parameters() if "proj" in n)

    bits = 32 - (model_bytes(plain) - model_bytes(quantized)) * 8 / weights

    assert 8 + 40 / 256 < bits < 8 + 40 / 127
    assert distance(quantized) < 0.05


def test_skipped_modules_and_the_tied_output_layer_keep_their_weights(tiny_folder):
    model, _ = load(tiny_folder, quant="torchao-int8", skip_modules="q_proj")
    layer = model.model.layers[0].self_attn

    kinds = [type(module.weight).__name__ for module in (layer.q_proj, layer.k_proj, model.lm_head)]

    assert kinds == ["Parameter", "Int8Tensor", "Parameter"]
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_wrong_option_is_named_with_what_is_right(tiny_folder):
    with pytest.raises(ParameterError, match="Did you mean 'skip_modules'"):
        load(tiny_folder, quant="torchao-int8", skip_module="o_proj")


@pytest.mark.cuda
def test_it_runs_on_a_gpu(tiny_folder, cuda, distance):
    model, _ = load(tiny_folder, quant="torchao-int8", device_map={"": cuda})

    assert distance(model) < 0.05

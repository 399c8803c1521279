import pytest
import torch
from decodekit import CapabilityError
from decodekit.load import load, model_bytes
from decodekit.testing import quant_checks
from decodekit_quant_backends.int8 import Int8, Int8Linear
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from tests.quant_backends.strategies import STRATEGIES

CHECKS = quant_checks(Int8, strategies=STRATEGIES)


@pytest.mark.parametrize("check", [body for _, body in CHECKS], ids=[name for name, _ in CHECKS])
def test_it_keeps_the_contract_and_its_laws(check):
    check()


def test_weights_are_off_by_half_a_step_of_their_row_at_most():
    linear = nn.Linear(64, 9)
    linear.weight.data[3] = 0
    quantized = Int8Linear(linear)

    error = (quantized.weight * quantized.scale[:, None] - linear.weight).abs()

    assert (error <= linear.weight.abs().amax(dim=1, keepdim=True) / 127 * 0.51).all()


@pytest.mark.parametrize("cpu", ["AVX2", "AVX512"])
@pytest.mark.parametrize("size", [64, 62])
@pytest.mark.parametrize("bias", [True, False])
def test_what_is_streamed_is_the_forward_in_either_form(bias, size, cpu, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    quantized = Int8Linear(nn.Linear(size, 9, bias=bias))
    x = torch.randn(3, size)
    streamed = quantized.stream(x) + (quantized.bias if bias else 0)
    torch.testing.assert_close(streamed, quantized(x))


def test_the_output_layer_is_quantized_on_demand_as_a_copy(tiny_folder):
    plain, kept, copied = (
        load(tiny_folder, quant=quant)[0] for quant in ("none", "int8", ("int8", {"output_layer": True}))
    )
    embeddings = plain.get_input_embeddings().weight

    assert kept.get_output_embeddings().weight is kept.get_input_embeddings().weight
    assert isinstance(copied.get_output_embeddings(), Int8Linear)
    assert torch.equal(copied.get_input_embeddings().weight, embeddings)
    assert 0 < model_bytes(copied) - model_bytes(kept) < embeddings.nbytes / 3.5


def test_skipped_modules_keep_their_weights(tiny_folder):
    model, _ = load(tiny_folder, quant="int8", skip_modules="q_proj")
    layer = model.model.layers[0].self_attn

    assert [type(part) for part in (layer.q_proj, layer.k_proj)] == [nn.Linear, Int8Linear]


def test_a_model_without_linear_layers_is_refused():
    config = GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1)
    with pytest.raises(CapabilityError, match="GPT2LMHeadModel has no linear layers"):
        Int8().convert(GPT2LMHeadModel(config))


@pytest.mark.cuda
def test_it_runs_on_a_gpu(tiny_folder, cuda, distance):
    model, _ = load(tiny_folder, quant="int8", device_map={"": cuda})

    assert distance(model) < 0.05

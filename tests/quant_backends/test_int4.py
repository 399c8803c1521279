import pytest
import torch
from decodekit import CapabilityError
from decodekit.load import load
from decodekit.testing import quant_checks
from decodekit_quant_backends.int4 import Int4, Int4Linear
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.quant_backends.strategies import STRATEGIES

CHECKS = quant_checks(Int4, strategies=STRATEGIES)


@pytest.mark.parametrize("check", [body for _, body in CHECKS], ids=[name for name, _ in CHECKS])
def test_it_keeps_the_contract_and_its_laws(check):
    check()


def weight_of(quantized):
    return quantized(torch.eye(quantized.in_features)).T


@given(st.sampled_from([32, 64]), st.floats(0.01, 100), st.integers(0, 99))
def test_weights_are_off_by_half_a_step_of_their_group_at_most(group_size, scale, seed):
    linear = nn.Linear(256, 5, bias=False)
    linear.weight.data = scale * torch.randn(5, 256, generator=torch.Generator().manual_seed(seed))
    groups = linear.weight.detach().reshape(5, -1, group_size)
    step = (groups.amax(-1) - groups.amin(-1)) / 15

    error = (weight_of(Int4Linear(linear, group_size)) - linear.weight).detach().reshape(5, -1, group_size)

    assert (error.abs() <= 0.52 * step[..., None] + groups.abs().amax(-1)[..., None] * 2e-3).all()


def test_sixteen_equidistant_values_are_kept_exactly():
    values = torch.arange(16).repeat(2).float() / 4 - 2
    linear = nn.Linear(64, 3, bias=False)
    linear.weight.data = torch.cat([values[torch.randperm(32)] for _ in range(6)]).reshape(3, 64)
    assert torch.equal(weight_of(Int4Linear(linear, 32)), linear.weight)


@pytest.mark.parametrize("cpu", ["AVX2", "AVX512"])
@pytest.mark.parametrize("group_size", [32, 64])
@pytest.mark.parametrize("bias", [True, False])
def test_what_is_streamed_is_the_forward_in_either_form(bias, group_size, cpu, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    quantized = Int4Linear(nn.Linear(256, 9, bias=bias), group_size)
    x = torch.randn(3, 256)
    streamed = quantized.stream(x) + (quantized.bias if bias else 0)
    torch.testing.assert_close(streamed, quantized(x))


def test_groups_that_do_not_fit_are_refused_before_anything_is_changed():
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=9,
            hidden_size=96,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=1,
        )
    )
    with pytest.raises(
        CapabilityError, match=r"group_size=32 needs inputs in multiples of 64 .* and model\.layers.*has 96"
    ):
        Int4().convert(model)
    assert not any(isinstance(part, Int4Linear) for part in model.modules())


def test_a_group_of_one_value_stays_that_value():
    linear = nn.Linear(64, 2, bias=False)
    linear.weight.data.fill_(0.25)
    assert torch.equal(weight_of(Int4Linear(linear, 32)), linear.weight)


@pytest.mark.cuda
def test_it_runs_on_a_gpu(tiny_folder, cuda, distance):
    model, _ = load(tiny_folder, quant="int4", device_map={"": cuda})

    assert distance(model) < 0.5

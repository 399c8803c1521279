import contextlib
from unittest import mock

import decodekit as dk
import pytest
import torch
from decodekit import wide
from decodekit.compiled import compiled_step
from decodekit.wide import WideLinear, has_arithmetic, wide_product
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

CPU = torch.device("cpu")
HALVES = (torch.bfloat16, torch.float16)


@contextlib.contextmanager
def on(fast):
    """A CPU, and slices of two rows of a weight of 6 columns, so that of 5 rows the last is alone."""
    with (
        mock.patch.dict(wide._CALCULATES, dict.fromkeys(HALVES, fast)),
        mock.patch.object(wide, "_SLICE", 15),
    ):
        yield


@pytest.mark.parametrize("fast", [True, False])
def test_arithmetic_is_missing_for_halves_on_a_cpu_without_it(fast):
    with on(fast):
        assert [has_arithmetic(CPU, dtype) for dtype in HALVES] == [fast] * 2
        assert has_arithmetic(CPU, torch.float32)
        assert has_arithmetic(torch.device("meta"), torch.bfloat16)


@given(
    st.booleans(),
    st.integers(0, 40),
    st.sampled_from([*HALVES, torch.float32]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_a_wide_layer_is_the_layer(fast, tokens, dtype, bias, transposed, seed):
    generator = torch.Generator().manual_seed(seed)
    linear = Conv1D(5, 6) if transposed else nn.Linear(6, 5, bias=bias)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    linear.to(dtype)
    x = torch.randn(1, tokens, 6, generator=generator).to(dtype)
    with on(fast):
        result = WideLinear(linear)(x)
    assert result.dtype is dtype
    close = {torch.bfloat16: 4e-3, torch.float16: 5e-4, torch.float32: 1e-5}[dtype]  # one rounding
    close *= (
        8 if transposed else 1
    )  # transformers' own layer, which the product of few tokens is compared with
    exact = linear.double()(x.double())
    torch.testing.assert_close(result.double(), exact, rtol=close, atol=close)


@pytest.mark.parametrize("tokens", [7, 8])
def test_some_rows_at_a_time_are_made_float32_from_8_tokens_on(tokens):
    asked = []

    def weight(rows, dtype):
        asked.append((dtype, len(range(5)[rows])))
        return torch.ones(5, 6, dtype=dtype)[rows]

    x = torch.ones(1, tokens, 6, dtype=torch.bfloat16)
    with on(False):
        assert wide_product(x, 5, weight).tolist() == [[[6.0] * 5] * tokens]
    assert asked == ([(torch.bfloat16, 5)] if tokens < 8 else [(torch.float32, size) for size in (2, 2, 1)])


GPT2 = GPT2Config(vocab_size=99, n_embd=64, n_layer=2, n_head=4)
LLAMA = LlamaConfig(
    vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
)


@pytest.mark.parametrize(("kind", "config"), [(GPT2LMHeadModel, GPT2), (LlamaForCausalLM, LLAMA)])
def test_prompts_go_by_float32_where_the_cpu_has_no_arithmetic_for_halves(
    interpreted, monkeypatch, kind, config
):
    monkeypatch.setitem(wide._CALCULATES, torch.bfloat16, False)
    fed, forward = [], WideLinear.forward
    monkeypatch.setattr(
        WideLinear, "forward", lambda part, x: (fed.append(x.shape[:-1].numel()), forward(part, x))[1]
    )
    mine = kind(config).eval().bfloat16()
    prompts = torch.arange(5, 29).view(2, 12)
    call = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": 4, "min_new_tokens": 4}
    same = dk.generate(mine, prompts, **call, compile=True)
    assert same.shape == (2, 16)
    assert set(fed) == {24, 2}  # all columns of both prompts, and their last ones through the output layer

    step = compiled_step(mine)
    large = step.for_pass(2, 12, prompt=True)
    assert large is step.for_pass(17, 1, prompt=False)
    assert step.for_pass(16, 1, prompt=False) is step
    with torch.no_grad():
        torch.testing.assert_close(large(prompts).logits, mine(prompts).logits, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(("dtype", "fast"), [(torch.float32, False), (torch.bfloat16, True)])
def test_prompts_go_through_the_model_where_the_cpu_calculates_in_its_type(
    interpreted, monkeypatch, dtype, fast
):
    monkeypatch.setitem(wide._CALCULATES, torch.bfloat16, fast)
    step = compiled_step(LlamaForCausalLM(LLAMA).eval().to(dtype))
    assert step.for_pass(1, 12, prompt=True) is step.for_pass(1, 17, prompt=False) is None


@pytest.mark.parametrize(("rows", "size"), [(0, 6), (5, 0)])
def test_a_weight_without_rows_or_columns(rows, size):
    x, weight = torch.ones(9, size, dtype=torch.bfloat16), torch.empty(rows, size)
    with on(False):
        result = wide_product(x, rows, lambda part, dtype: weight[part].to(dtype))
    assert torch.equal(result, x.new_zeros(9, rows))


@pytest.mark.parametrize("linear", [nn.Linear(6, 5), Conv1D(5, 6)], ids=["Linear", "Conv1D"])
def test_a_weight_that_was_replaced_is_the_one_that_is_used(linear):
    part, x = WideLinear(linear), torch.ones(1, 6)
    linear.weight.data = linear.weight.data * 3 + 1
    torch.testing.assert_close(part(x), linear(x))


def test_another_attention_makes_another_step(interpreted):
    model = LlamaForCausalLM(LLAMA).eval()
    step = compiled_step(model)
    model.set_attn_implementation("eager")
    assert compiled_step(model) is not step

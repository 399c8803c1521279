import pytest
import torch
from decodekit.kernels import NotCompilableError
from decodekit.streamed import StreamedLinear, attention, is_streamable
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D


@given(st.integers(1, 5), st.integers(1, 7), st.booleans(), st.booleans(), st.integers(0, 99))
def test_a_streamed_layer_is_the_layer(tokens, spare, bias, transposed, seed):
    generator = torch.Generator().manual_seed(seed)
    linear = Conv1D(3, 6) if transposed else nn.Linear(6, 3, bias=bias)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    streamed = StreamedLinear(linear)
    streamed.slots = tokens + spare - 1
    x = torch.randn(1, tokens, 6, generator=generator)
    torch.testing.assert_close(streamed(x), linear(x))


@given(
    st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_its_attention_is_torchs(heads, count, softened, padded, seed):
    per_group, groups = heads
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(2, per_group * groups, count, 8, generator=generator)
    key, value = torch.randn(2, 2, groups, 9, 8, generator=generator)
    mask = torch.ones(9, 9, dtype=torch.bool).tril()[-count:].expand(2, 1, count, 9).clone()
    if padded:
        mask[0, ..., :3] = False
    seen, nothing = attention(nn.Module(), query, key, value, mask, softcap=1e6 if softened else None)
    wanted = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    assert nothing is None
    torch.testing.assert_close(seen.transpose(1, 2), wanted, atol=1e-5, rtol=1e-5)


def test_what_changes_the_result_is_refused():
    x = torch.zeros(1, 1, 1, 4)
    with pytest.raises(NotCompilableError, match="sinks"):
        attention(nn.Module(), x, x, x, torch.ones(1, 1, 1, 1).bool(), s_aux=torch.zeros(1))


def test_a_layer_with_a_weight_of_another_kind_is_not_streamable():
    class Odd(nn.Linear):
        pass

    assert is_streamable(nn.Linear(2, 2))
    assert not is_streamable(Odd(2, 2))
    assert not is_streamable(nn.LayerNorm(2))

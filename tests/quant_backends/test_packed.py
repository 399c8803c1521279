"""What torch's compiler makes of weights that are read by words, on the CPU of this machine."""

import pytest
import torch
from decodekit import wide
from decodekit.kernels import Kernel, compile_kernel
from decodekit_quant_backends.int4 import Int4Linear
from decodekit_quant_backends.int8 import Int8Linear
from torch import nn

LAYERS = {
    "int8": Int8Linear,
    "int4": lambda linear: Int4Linear(linear, 32),
}


class Stream(nn.Module):
    pattern = ("tensor",)

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return [self.layer.stream(x)]


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_the_compiled_stream_is_the_forward(make, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    layer = make(nn.Linear(192, 24, bias=False))
    layer.weight.view(torch.uint8)[0, :4] = torch.tensor([0x80, 0x7F, 0xFF, 0x01], dtype=torch.uint8)  # signs
    x = torch.randn(2, 192)
    path = tmp_path / "kernel.pt2"
    compile_kernel(Stream(layer), [x], [None], path)
    with torch.no_grad():
        torch.testing.assert_close(Kernel.load(path).run([x])[0], layer(x))


@pytest.mark.parametrize("tokens", [7, 8])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_many_tokens_of_half_precision_are_multiplied_in_float32(make, tokens, monkeypatch):
    monkeypatch.setitem(wide._CALCULATES, torch.bfloat16, False)
    layer = make(nn.Linear(192, 24))
    asked, rows = [], layer._rows
    monkeypatch.setattr(layer, "_rows", lambda part, dtype: (asked.append(dtype), rows(part, dtype))[1])
    x = torch.randn(tokens, 192).bfloat16()
    with torch.no_grad():
        exact = layer(x.float())
        layer.bias = nn.Parameter(layer.bias.bfloat16())
        torch.testing.assert_close(layer(x).float(), exact, atol=2e-2, rtol=1e-2)
    assert asked == [torch.float32, torch.float32 if tokens == 8 else torch.bfloat16]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("tokens", [1, 8])
def test_sums_that_float16_holds_only_when_they_are_scaled(tokens, fast, monkeypatch):
    monkeypatch.setitem(wide._CALCULATES, torch.float16, fast)
    linear = nn.Linear(1024, 4, bias=False)
    nn.init.ones_(linear.weight)
    x = torch.ones(tokens, 1024, dtype=torch.float16)
    torch.testing.assert_close(Int8Linear(linear)(x), torch.full((tokens, 4), 1024.0).half())

"""What torch's compiler makes of weights that are read by words, on the CPU of this machine."""

import pytest
import torch
from decodekit_quant_backends.int4 import Int4Linear
from decodekit_quant_backends.int8 import Int8Linear
from torch import nn

LAYERS = {
    "int8": Int8Linear,
    "int4": lambda linear: Int4Linear(linear, 32),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # in its compiler, of its own
@pytest.mark.parametrize("cpu", ["AVX2", "AVX512"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_the_compiled_stream_is_the_forward(make, cpu, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    layer = make(nn.Linear(192, 24, bias=False))
    layer.weight.view(torch.uint8)[0, :4] = torch.tensor([0x80, 0x7F, 0xFF, 0x01], dtype=torch.uint8)  # signs
    x = torch.randn(2, 192)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(layer.stream, fullgraph=True)(x)
        torch.testing.assert_close(compiled, layer(x))

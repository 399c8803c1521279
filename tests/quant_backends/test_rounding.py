"""Laws of rounding a weight and back, for every backend's own arithmetic."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

HALF = torch.float16, torch.bfloat16
NF4_GAP, FP4_GAP = 0.3038, 1 / 3  # the widest gaps of neighbouring codes, in parts of the scale


def bnb(kind):
    def there_and_back(weight):
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        packed, state = quantize_4bit(weight.contiguous(), blocksize=64, quant_type=kind)
        return dequantize_4bit(packed, state)

    return there_and_back


def bnb_int8(weight):
    from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant

    values, scales, _ = int8_vectorwise_quant(weight.to(torch.float16))
    return int8_vectorwise_dequant(values, scales).to(weight.dtype)


def torchao(config):
    def there_and_back(weight):
        from torchao.quantization import quantize_

        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        layer.weight.data = weight.clone()
        quantize_(layer, config())
        return layer(torch.eye(weight.shape[1], dtype=weight.dtype)).T.detach()

    return there_and_back


def int8_config():
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig(set_inductor_config=False)


def int4_config():
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

    return PrototypeInt4WeightOnlyConfig(group_size=32, set_inductor_config=False)


class Arithmetic(NamedTuple):
    """How a backend rounds: the function, weights a scale (None: a row), largest errors in scales."""

    there_and_back: object
    block: int | None
    step: float
    again: float = 1e-3
    keeps_zero: bool = True


ARITHMETIC = {
    "bnb-nf4": Arithmetic(bnb("nf4"), 64, NF4_GAP / 2),
    "bnb-fp4": Arithmetic(bnb("fp4"), 64, FP4_GAP / 2),
    "bnb-int8": Arithmetic(bnb_int8, None, 0.5 / 127),
    # its scale is the largest weight / 127.5, so that this weight shrinks a little each time
    "torchao-int8": Arithmetic(torchao(int8_config), None, 0.5 / 127, again=0.51 / 127),
    "torchao-int4": Arithmetic(
        torchao(int4_config), 32, 1 / 15, keeps_zero=False
    ),  # of the range, twice absmax
}
parametrize = pytest.mark.parametrize("name", ARITHMETIC)


@st.composite
def weights(draw, name, dtypes=(torch.float32,), rows=(1, 5)):
    """Normal weights of widths that the backend takes, some with one outlier a row or all equal."""
    block = ARITHMETIC[name].block
    count = draw(st.integers(*rows))
    # torchao's int4 kernels take rows by 16, and blocks that cross rows are refused on a CPU
    count = 16 * count if name == "torchao-int4" else count
    width = draw(st.integers(1, 3)) * block if block else draw(st.integers(2, 70))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    weight = torch.randn(count, width, generator=generator) * 10.0 ** draw(st.integers(-3, 2))
    form = draw(st.sampled_from(["normal", "outlier", "equal", "zero"]))
    if form == "outlier":
        weight[:, draw(st.integers(0, width - 1))] *= 100
    if form == "equal":
        weight = weight[:, :1].expand(-1, width).clone()
    if form == "zero":
        weight = torch.zeros_like(weight)
    return weight.to(draw(st.sampled_from(dtypes)))


def scales(weight, block):
    """The largest magnitude of each weight's block, float32 like the weight."""
    parts = weight.float().view(weight.shape[0], -1, block or weight.shape[1])
    return parts.abs().amax(dim=-1, keepdim=True).expand_as(parts).reshape(weight.shape)


@parametrize
@given(st.data())
def test_the_error_is_at_most_half_a_step_of_the_blocks_scale(name, data):
    weight = data.draw(weights(name))
    kind = ARITHMETIC[name]

    error = (kind.there_and_back(weight).float() - weight).abs()

    bound = scales(weight, kind.block) * (kind.step * 1.01 + 2e-3 * (name == "bnb-int8"))
    assert (error <= bound + 1e-7).all()


@pytest.mark.parametrize("name", [name for name, kind in ARITHMETIC.items() if kind.keeps_zero])
@given(st.data())
def test_zero_stays_zero_and_signs_stay(name, data):
    weight = data.draw(weights(name, rows=(2, 2)))
    weight[0, 0] = 0

    rounded = ARITHMETIC[name].there_and_back(weight)

    assert rounded[0, 0] == 0
    assert (rounded * weight >= 0).all()


@parametrize
@given(st.data())
def test_rounding_again_changes_nothing(name, data):
    kind = ARITHMETIC[name]
    once = kind.there_and_back(data.draw(weights(name)))

    twice = kind.there_and_back(once)

    assert ((twice - once).abs() <= scales(once, kind.block) * kind.again + 1e-7).all()


@parametrize
@given(st.data())
def test_a_row_does_not_depend_on_the_others(name, data):
    weight = data.draw(weights(name, rows=(2, 4)))
    other = weight.clone()
    other[1:] = other[1:] * 3 + 1

    first, again = (ARITHMETIC[name].there_and_back(item)[0] for item in (weight, other))

    assert torch.equal(first, again)


@parametrize
@given(st.data())
def test_shape_and_dtype_are_kept(name, data):
    dtypes = (torch.float32, *HALF)
    weight = data.draw(weights(name, dtypes))

    rounded = ARITHMETIC[name].there_and_back(weight)

    assert (rounded.shape, rounded.dtype) == (weight.shape, weight.dtype)
    assert torch.isfinite(rounded).all()

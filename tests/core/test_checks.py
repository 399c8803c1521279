"""What a call is given for a tensor."""

import decodekit as dk
import numpy as np
import pytest
import torch
from decodekit.checks import check_mask, to_tensor
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

CPU = torch.device("cpu")
SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=0)
NUMBERS = st.sampled_from([np.int64, np.int32, np.uint16, np.uint8, np.bool_, np.float32])


@given(array=NUMBERS.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)), flip=st.booleans())
def test_every_container_of_the_same_numbers_is_the_same_tensor(array, flip):
    array = array[:, ::-1] if flip else array
    array = np.nan_to_num(array)
    made = to_tensor("x", array, CPU)
    assert made.tolist() == array.tolist()
    listed = array.tolist()
    for other in (
        listed,
        tuple(map(tuple, listed)),
        list(array),
        [torch.tensor(row) for row in listed],
        made,
    ):
        assert to_tensor("x", other, CPU).tolist() == listed
    assert not to_tensor("x", np.zeros((2, 0), dtype=np.int64).tolist(), CPU).is_floating_point()


@pytest.mark.parametrize("value", ["5 6", 5, {"a": 1}, {5, 6}, [[5], [6, 7]], [["a"]], [[5, None]]], ids=str)
def test_what_is_no_tensor_is_named(value):
    with pytest.raises(dk.ParameterError, match="input_ids is"):
        to_tensor("input_ids", value, CPU)


@given(
    mask=arrays.arrays(
        np.float64, SHAPES, elements=st.sampled_from([0, 1, -1, 0.5, 2, -1e9, np.nan, -np.inf])
    )
)
def test_a_mask_holds_zeros_and_ones(mask):
    columns = torch.zeros(mask.shape)
    right = bool(np.isin(mask, [0, 1]).all())
    if right:
        check_mask(torch.tensor(mask), columns, "mask", "ids")
    else:
        with pytest.raises(dk.ParameterError, match=r"mask holds values from .* 1 where there is a token"):
            check_mask(torch.tensor(mask), columns, "mask", "ids")

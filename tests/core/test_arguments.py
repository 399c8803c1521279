"""The checks of arguments that no plugin has as its parameter; tests/parity has each beside transformers'."""

import decodekit as dk
import numpy as np
import pytest
import torch
from decodekit.arguments import check_values


@pytest.mark.parametrize(
    "values",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": np.int64(3), "max_time": 3, "guidance_scale": np.float32(1.5)},
        {
            "eos_token_id": [2, 3],
            "pad_token_id": torch.tensor(2),
            "decoder_start_token_id": torch.tensor([1]),
        },
        {"stop_strings": ["a", "b"], "do_sample": False, "max_length": None},
        {"something_else": {"of": "anybody"}},
    ],
    ids=str,
)
def test_what_is_right_passes(values):
    check_values(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", -1),
        ("max_new_tokens", False),
        ("max_new_tokens", 0.0),
        ("max_length", True),
        ("guidance_scale", False),
        ("max_time", float("nan")),
        ("guidance_scale", float("nan")),
        ("guidance_scale", float("inf")),
        ("eos_token_id", [2, "x"]),
        ("eos_token_id", torch.tensor([2.0])),
        ("pad_token_id", [2]),
        ("stop_strings", ["a", 3]),
        ("stop_strings", ["", "a"]),
        ("stop_strings", ""),
        ("do_sample", 1),
    ],
)
def test_what_is_wrong_is_named(name, value):
    with pytest.raises(dk.ParameterError, match=f"{name}=.* is not allowed: {name} must be"):
        check_values({name: value})

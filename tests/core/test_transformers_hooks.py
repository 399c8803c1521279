"""What transformers lets through and decodekit names."""

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama

MODEL = tiny_llama(32)
IDS = [[5, 6, 7, 8], [9, 10, 11, 12]]


def call(**arguments):
    arguments = {"input_ids": torch.tensor(IDS), "max_new_tokens": 3, **arguments}
    return dk.generate(MODEL, **arguments)


def test_ids_and_mask_may_be_lists():
    mask = [[0, 1, 1, 1], [1] * 4]
    expected = call(attention_mask=torch.tensor(mask))
    assert torch.equal(call(input_ids=IDS, attention_mask=mask), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 2.5}, "max_new_tokens=2.5 is not allowed"),
        ({"num_return_sequences": 0}, "num_return_sequences=0 is not allowed"),
        ({"num_return_sequences": -1, "do_sample": True}, "num_return_sequences=-1 is not allowed"),
        ({"generation_config": {"num_beams": 2}}, "generation_config=.* must be a transformers"),
        ({"input_ids": torch.empty(0, 4, dtype=torch.long)}, r"shape \[0, 4\].*at least one row"),
        ({"do_sample": True, "top_k": -1}, "top_k=-1 is not allowed"),
    ],
    ids=str,
)
def test_values_out_of_range_are_named(arguments, message):
    with pytest.raises(dk.ParameterError, match=message):
        call(**arguments)


def test_a_text_is_no_input():
    with pytest.raises(dk.ParameterError, match="inputs is a str"):
        dk.generate(tiny_llama(32), "hello", max_new_tokens=2)

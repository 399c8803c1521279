import math
import sys

import decodekit as dk
import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import logits
from decodekit.testing.models import MarkovModel
from decodekit_processors.remove_invalid_values import RemoveInvalidValues
from hypothesis import given
from hypothesis import strategies as st
from transformers import InfNanRemoveLogitsProcessor

INF = math.inf


def oracle(row: OracleRow, remove_invalid_values):
    return [-sys.float_info.max if remove_invalid_values and x == -INF else x for x in row.logits]


CHECKS = dict(processor_checks(RemoveInvalidValues, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(3, 64).flatmap(lambda v: logits(v, 2, dtypes=[torch.float32, torch.float64, torch.bfloat16])),
    st.lists(st.sampled_from([math.nan, INF, -INF]), max_size=3),
)
def test_same_as_transformers(x, invalid):
    x[:, : len(invalid)] = torch.tensor(invalid)
    ours = RemoveInvalidValues()(x, History.of([[0], [1]]))
    assert torch.equal(ours, InfNanRemoveLogitsProcessor()(None, x))
    assert ours.isfinite().all()


TABLE = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
PROMPTS = {
    "input_ids": torch.tensor([[4], [1]]),
    "max_new_tokens": 4,
    "eos_token_id": None,
    "pad_token_id": 0,
}


def model_with(value):
    """A Markov table whose token 3 has a damaged logit after token 1, which is the second prompt."""
    table = TABLE.clone()
    table[1, 3] = value
    return MarkovModel(table)


@pytest.mark.parametrize("value", [math.nan, INF])
@pytest.mark.parametrize("arguments", [{}, {"do_sample": True, "top_k": 4}], ids=str)
def test_a_call_goes_on_as_in_transformers(value, arguments):
    model, outputs = model_with(value), []
    for generate in (model.generate, lambda **kw: dk.generate(model, **kw)):
        torch.manual_seed(0)
        outputs.append(generate(**PROMPTS, **arguments, remove_invalid_values=True))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("value", [math.nan, INF])
@pytest.mark.parametrize(
    "arguments", [{}, {"remove_invalid_values": False}, {"processors": ["top_k"]}], ids=str
)
def test_without_it_the_row_is_named(value, arguments):
    with pytest.raises(dk.NonFiniteLogitsError, match=r"row 1 \(prompt 1\) at step 0"):
        dk.generate(model_with(value), **PROMPTS, **arguments)


def test_a_chain_of_ones_own_cleans_too():
    out = dk.generate(
        model_with(math.nan), **PROMPTS, processors=["remove_invalid_values", ("top_k", {"top_k": 3})]
    )
    assert out.shape == (2, 5)

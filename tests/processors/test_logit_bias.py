import math

import pytest
import torch
from decodekit import CallContext, History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit_processors.logit_bias import LogitBias

HISTORY = History.of([[0]])
EXAMPLES = [
    {"logit_bias": {0: -100.0, 1: 2.5}},
    {"logit_bias": {1: 1e-3}},
    {"logit_bias": "[[0, 1.5], [1, -7], [0, 1]]"},
]


def oracle(row: OracleRow, logit_bias):
    return [x + sum(bias for token, bias in logit_bias if token == i) for i, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(LogitBias, oracle=oracle, examples=EXAMPLES))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


def test_adds_to_the_named_tokens_only():
    x = torch.tensor([[1.0, 2.0, -math.inf]])
    assert LogitBias({1: 3, 2: 100})(x, HISTORY).tolist() == [[1.0, 5.0, -math.inf]]


@pytest.mark.parametrize("bias", [100.5, -math.inf, math.nan])
def test_a_bias_out_of_range_is_refused(bias):
    with pytest.raises(ParameterError, match=r"logit_bias=\{7: .*\[-100, 100\]"):
        LogitBias({7: bias})


@pytest.mark.parametrize("token", [-1, 8])
def test_an_id_without_a_logit_is_refused_when_a_call_begins(token):
    with pytest.raises(ParameterError, match=rf"logit_bias=\{{{token}: .*\[0, 8\)"):
        LogitBias({0: 1.0, token: 1.0}).bind(CallContext(vocab_size=8))

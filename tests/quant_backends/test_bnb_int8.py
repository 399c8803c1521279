import logging

import pytest
import torch
from decodekit import ParameterError
from decodekit.load import load, model_bytes
from decodekit.testing import quant_checks
from decodekit_quant_backends.bnb_int8 import BnbInt8

from tests.quant_backends.strategies import STRATEGIES

CHECKS = quant_checks(BnbInt8, strategies=STRATEGIES)


@pytest.mark.parametrize("check", [body for _, body in CHECKS], ids=[name for name, _ in CHECKS])
def test_it_keeps_the_contract_and_its_laws(check):
    check()


def test_every_option_reaches_transformers():
    backend = BnbInt8(threshold=4, skip_modules=("o_proj",))

    config = backend.load_kwargs(torch.float32, torch.device("cpu"))["quantization_config"]

    assert (config.load_in_8bit, config.load_in_4bit) == (True, False)
    assert config.llm_int8_threshold == 4.0
    assert config.llm_int8_skip_modules == ["lm_head", "o_proj"]


def test_logits_stay_within_a_bound_of_the_unquantized(tiny_folder, distance):
    model, _ = load(tiny_folder, quant="bnb-int8")

    assert 0.001 < distance(model) < 0.06


def test_a_lower_threshold_is_closer_since_more_columns_stay_in_half_precision(tiny_folder, distance):
    low, none = (distance(load(tiny_folder, quant="bnb-int8", threshold=value)[0]) for value in (0.5, 0))

    assert low < none


def test_the_forward_is_deterministic(tiny_folder, logits_of):
    model, _ = load(tiny_folder, quant="bnb-int8")

    assert torch.equal(logits_of(model), logits_of(model))


def test_a_linear_weight_takes_eight_bits_before_and_after_the_first_forward(tiny_folder, logits_of):
    plain, quantized = (load(tiny_folder, quant=quant)[0] for quant in ("none", "bnb-int8"))
    weights = sum(p.numel() for n, p in plain.named_parameters() if "proj" in n)

    for _ in range(2):
        bits = (model_bytes(quantized) - (model_bytes(plain) - 4 * weights)) * 8 / weights
        assert 8 < bits < 8.5  # and one float32 scale a row
        logits_of(quantized)


def test_the_message_of_each_layer_is_not_shown(tiny_folder, logits_of, caplog):
    model, _ = load(tiny_folder, quant="bnb-int8")

    logits_of(model)
    logging.getLogger("bitsandbytes.autograd._functions").warning("something new")

    assert [record.getMessage() for record in caplog.records] == ["something new"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"treshold": 1}, "Did you mean 'threshold'"), ({"threshold": -1}, r"threshold=-1.0.*\[0, inf\)")],
)
def test_a_wrong_option_is_named_with_what_is_right(tiny_folder, options, message):
    with pytest.raises(ParameterError, match=message):
        load(tiny_folder, quant="bnb-int8", **options)


@pytest.mark.cuda
def test_it_runs_on_a_gpu(tiny_folder, cuda, distance):
    model, _ = load(tiny_folder, quant="bnb-int8", device_map={"": cuda})

    assert distance(model) < 0.06

"""A quantized self: a copy in fewer bits drafts, made once for a model."""

import copy

import decodekit as dk
import pytest
import torch
from decodekit.testing import check_drafter
from decodekit.testing.models import tiny_llama
from decodekit_strategies.drafters.quantized import Quantized
from transformers import AutoModelForCausalLM
from transformers.utils import logging

INPUTS = {"input_ids": torch.tensor([[1, 3, 1], [4, 5, 6]]), "attention_mask": torch.ones(2, 3).long()}


def run(model, **arguments):
    arguments = {"max_new_tokens": 10, "do_sample": True, "seed": 4, **arguments}
    return dk.generate(model, **INPUTS, return_dict_in_generate=True, **arguments)


def drafted(model, quant):
    return run(model, strategy="assisted", drafter=("quantized", {"quant": quant}), adaptive=False)


def test_an_exact_copy_is_always_right_and_is_made_once():
    model = tiny_llama(7, seed=3, dtype=torch.float32, eos_token_id=None)
    state = torch.random.get_rng_state()
    first = drafted(model, "none")
    assert first.stats.accepted == first.stats.drafted > 0
    assert torch.equal(first.sequences, run(model).sequences)
    weights = model.lm_head.weight
    weights.data[:] = weights.data.roll(1, 0)
    changed = drafted(model, "none")  # the copy has the weights of the first call
    assert changed.stats.accepted < changed.stats.drafted
    assert torch.equal(changed.sequences, run(model).sequences)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("shown", [True, False])
def test_making_the_copy_leaves_no_trace(shown, capfd):
    was = logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    try:
        model = tiny_llama(7, seed=3, dtype=torch.float32, eos_token_id=None)
        before = copy.deepcopy((vars(model.config), vars(model.generation_config)))
        capfd.readouterr()
        drafted(model, "none")
        assert capfd.readouterr() == ("", "")
        assert (vars(model.config), vars(model.generation_config)) == before
        assert logging.is_progress_bar_enabled() == shown
    finally:
        (logging.enable_progress_bar if was else logging.disable_progress_bar)()


def test_four_bits_draft_for_thirty_two(tiny_folder):
    pytest.importorskip("bitsandbytes")
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    output = drafted(model, "bnb-nf4")
    assert torch.equal(output.sequences, run(model).sequences)
    assert output.stats.drafted > 0


def test_a_quantized_model_is_refused():
    model = tiny_llama(7, dtype=torch.float32)
    model.is_quantized = True
    with pytest.raises(dk.ParameterError, match="is not quantized, and this LlamaForCausalLM is"):
        drafted(model, "none")


def test_the_kit(profile):
    check_drafter(Quantized("none", 0.2), target=tiny_llama(7, seed=3), profile=profile)

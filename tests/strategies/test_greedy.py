import decodekit as dk
import pytest
import torch
from decodekit.testing import strategy_checks
from decodekit.testing.models import CacheHashModel, MarkovModel, tiny_llama
from decodekit_strategies.greedy import Greedy

CHECKS = dict(strategy_checks(Greedy))
RAGGED = {
    "input_ids": torch.tensor([[0, 0, 5, 6], [3, 4, 5, 7], [0, 8, 9, 3]]),
    "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]),
}


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@pytest.mark.parametrize("model", [tiny_llama(), CacheHashModel(16, pad_token_id=0), MarkovModel.random(10)])
@pytest.mark.parametrize(
    "options",
    [{}, {"eos_token_id": [2, 5, 7], "pad_token_id": 0}, {"repetition_penalty": 1.7}, {"min_new_tokens": 6}],
    ids=str,
)
def test_same_tokens_as_transformers(model, options):
    theirs = model.generate(**RAGGED, max_new_tokens=12, do_sample=False, **options)
    assert torch.equal(dk.generate(model, **RAGGED, max_new_tokens=12, **options), theirs)


def test_ties_go_to_the_lowest_id():
    table = torch.tensor([0.0, 2.0, 1.0, 2.0]).expand(4, 4)
    out = dk.generate(MarkovModel(table), torch.tensor([[3]]), max_new_tokens=3, strategy="greedy")
    assert out.tolist() == [[3, 1, 1, 1]]


def test_a_step_costs_one_forward_pass_of_one_token_a_row():
    out = dk.generate(
        tiny_llama(eos_token_id=None),
        **RAGGED,
        max_new_tokens=6,
        return_dict_in_generate=True,
        strategy=Greedy,
    )
    assert out.stats.strategy == "greedy"
    assert out.stats.forward_passes == 6
    assert out.stats.tokens_fed == 9 + 5 * 3

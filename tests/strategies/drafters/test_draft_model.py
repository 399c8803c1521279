"""A draft model: its tokens come from the target's chain on its own logits."""

import decodekit as dk
import pytest
import torch
from decodekit.testing import check_drafter
from decodekit.testing.models import tiny_llama
from decodekit_strategies.drafters.draft_model import DraftModel

TARGET, SMALL = tiny_llama(7, seed=3), tiny_llama(7, seed=9)
INPUTS = {
    "input_ids": torch.tensor([[0, 1, 3], [4, 5, 6]]),
    "attention_mask": torch.tensor([[0, 1, 1], [1] * 3]),
}


def stats_of(**arguments):
    arguments |= {"do_sample": True, "seed": 4, "max_new_tokens": 12, "return_dict_in_generate": True}
    return dk.generate(TARGET, **INPUTS, strategy="assisted", adaptive=False, **arguments).stats


def test_by_name_and_by_transformers_argument_it_is_the_same():
    named = stats_of(drafter=("draft_model", {"model": SMALL, "confidence_threshold": 0.2}))
    argued = stats_of(assistant_model=SMALL, assistant_confidence_threshold=0.2)
    assert (named.drafted, named.accepted) == (argued.drafted, argued.accepted)
    assert named.drafted > named.accepted > 0


def test_a_sure_model_drafts_as_many_tokens_as_are_wanted_and_an_unsure_one_stops():
    sure = stats_of(assistant_model=SMALL, assistant_confidence_threshold=0.0, num_assistant_tokens=3)
    unsure = stats_of(assistant_model=SMALL, assistant_confidence_threshold=1.0, num_assistant_tokens=3)
    assert sure.drafted > sure.rows[0].steps + sure.rows[1].steps
    assert unsure.drafted <= unsure.rows[0].steps + unsure.rows[1].steps


def test_another_vocabulary_is_refused():
    with pytest.raises(dk.ParameterError, match="vocabulary of 9 tokens"):
        stats_of(assistant_model=tiny_llama(9))


def test_the_kit(profile):
    check_drafter(DraftModel(SMALL, 0.2), target=TARGET, profile=profile)

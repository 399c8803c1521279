"""Another tokenizer by way of text: drafts are the target's tokens of what the assistant writes."""

import itertools

import decodekit as dk
import pytest
import torch
from decodekit.testing import check_drafter
from decodekit.testing.models import MarkovModel, tiny_llama
from decodekit_strategies.drafters._translation import Translator, continued
from decodekit_strategies.drafters.universal import Universal
from hypothesis import given
from hypothesis import strategies as st


def cycle(tokenizer, text, size):
    """A model that writes the text round and round: each token follows the last one."""
    ids = tokenizer(text)["input_ids"]
    table = torch.zeros(size, size)
    for before, after in zip(ids, [*ids[1:], ids[0]], strict=True):
        table[before, after] = 50.0
    return MarkovModel(table, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)


def test_an_assistant_that_writes_the_same_text_is_right_in_other_tokens(pairs, singles):
    target, assistant = cycle(pairs, "abcd ", 9), cycle(singles, "abcd ", 8)
    output = dk.generate(
        target,
        **pairs("abcd abcd", return_tensors="pt"),
        strategy="assisted",
        adaptive=False,
        assistant_model=assistant,
        tokenizer=pairs,
        assistant_tokenizer=singles,
        num_assistant_tokens=6,
        max_new_tokens=20,
        return_dict_in_generate=True,
    )
    assert pairs.decode(output.sequences[0]).startswith("abcd abcd abcd abcd")
    assert output.stats.accepted >= 12  # a letter at the end of a draft may be half of a pair
    assert output.stats.forward_passes < 10


@pytest.mark.parametrize("lookbehind", [1, 3])
def test_any_assistant_changes_no_token(pairs, singles, lookbehind):
    target, assistant = tiny_llama(9, seed=1, eos_token_id=1), tiny_llama(8, seed=2, eos_token_id=6)
    weights = {name: value.clone() for name, value in assistant.state_dict().items()}
    inputs = {
        "input_ids": torch.tensor([[7, 8, 6, 7], [0, 0, 5, 5]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]),
    }
    arguments = {**inputs, "max_new_tokens": 14, "return_dict_in_generate": True}
    spec = {"model": assistant, "tokenizer": singles, "confidence_threshold": 0.0}
    spec |= {"target_lookbehind": lookbehind, "assistant_lookbehind": lookbehind}
    for sampling in ({}, {"do_sample": True, "seed": 3}):
        plain = dk.generate(target, **arguments, **sampling)
        fast = dk.generate(
            target,
            **arguments,
            **sampling,
            strategy="assisted",
            drafter=("universal", spec),
            tokenizer=pairs,
            adaptive=False,
        )
        assert torch.equal(fast.sequences, plain.sequences)
        assert fast.stats.drafted > 0
    assert all(torch.equal(value, weights[name]) for name, value in assistant.state_dict().items())


@given(
    tokens=st.lists(st.integers(2, 8), min_size=1, max_size=20), cuts=st.sets(st.integers(1, 19), max_size=4)
)
def test_a_row_that_grows_has_the_tokens_of_its_whole_text(pairs, singles, tokens, cuts):
    row = dk.Row(prompt=0)
    translator = Translator(pairs, singles, 3)
    for start, end in itertools.pairwise([0, *sorted(cut for cut in cuts if cut < len(tokens)), len(tokens)]):
        row.tokens += tokens[start:end]
        assert translator.tokens_of(row) == singles(pairs.decode(row.tokens))["input_ids"]


def test_tokens_that_merge_with_the_end_replace_it_and_a_strange_end_fits_nowhere():
    assert continued([1, 2, 3], [2, 3], [2, 7, 8]) == [1, 2, 7, 8]
    assert continued([1, 2, 3], [4], [5, 6]) == []


def test_the_kit(pairs, singles, profile):
    assistant = tiny_llama(8, seed=2, eos_token_id=6)
    check_drafter(
        Universal(assistant, singles, 0.1), target=tiny_llama(9, seed=1), tokenizer=pairs, profile=profile
    )

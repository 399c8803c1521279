"""Encoder-decoder models: arguments that only they have, and drafts."""

import copy

import decodekit as dk
import pytest
import torch

from tests.parity.architectures import PAIR_MODELS, inputs_of, model_of
from tests.parity.differential import both

NAMES = ["bart", "t5"]
SETTINGS = {
    "the prompt's words": {"encoder_repetition_penalty": 1.7},
    "no token of the source": {"encoder_no_repeat_ngram_size": 1},
    "no n-gram of the source": {"encoder_no_repeat_ngram_size": 2, "num_beams": 2},
    "forced beginning": {"forced_bos_token_id": 9},
    "forced end": {"forced_eos_token_id": 2},
    "bad words": {"bad_words_ids": [[7], [8, 9]]},
    "own beginning": {"decoder_input_ids": torch.tensor([[4, 7, 8], [4, 9, 10]])},
    "own beginning without a start": {"decoder_input_ids": torch.tensor([[7, 8], [9, 10]])},
    "a start for each": {"decoder_start_token_id": [5, 6]},
    "a mask of the beginning": {
        "decoder_input_ids": torch.tensor([[4, 7, 8], [3, 4, 9]]),
        "decoder_attention_mask": torch.tensor([[1, 1, 1], [0, 1, 1]]),
    },
    "least length": {"min_length": 6},
    "allowed tokens": {"prefix_allowed_tokens_fn": lambda batch_id, tokens: [5, 6, 7 + batch_id]},
    "beam sampling": {"num_beams": 3, "do_sample": True},
    "repetition": {"repetition_penalty": 1.4, "do_sample": True},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_tokens(name, setting):
    theirs, ours = both(model_of(name), **inputs_of(name), **SETTINGS[setting], max_new_tokens=7)
    assert torch.equal(theirs, ours)


@pytest.mark.parametrize("name", NAMES)
def test_the_encoders_output_may_be_given(name):
    model, inputs = model_of(name), inputs_of(name)
    with torch.no_grad():
        encoded = model.get_encoder()(**inputs)
    mask = {"attention_mask": inputs["attention_mask"]}
    ours = dk.generate(model, encoder_outputs=encoded, **mask, max_new_tokens=7, num_beams=2)
    assert torch.equal(ours, dk.generate(model, **inputs, max_new_tokens=7, num_beams=2))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("drafts", ["model", "look-up"])
@pytest.mark.parametrize("name", NAMES)
def test_drafts_change_no_token(name, drafts, count):
    model = model_of(name)
    inputs = {key: value[:count] for key, value in inputs_of(name).items()}
    given = (
        {"assistant_model": copy.deepcopy(model)} if drafts == "model" else {"prompt_lookup_num_tokens": 3}
    )
    if (name, count) == ("bart", 2):  # its positions are columns, so rows can't accept different numbers
        with pytest.raises(dk.CapabilityError, match=r"BartFor.*counts positions by column.*one prompt at a"):
            dk.generate(model, **inputs, **given, max_new_tokens=8)
        return
    ours = dk.generate(model, **inputs, **given, max_new_tokens=8)
    assert torch.equal(ours, dk.generate(model, **inputs, max_new_tokens=8))


@pytest.mark.parametrize("name", PAIR_MODELS)
def test_rows_are_their_own(name):
    """A row's tokens do not depend on the others, though rows leave and come in another order."""
    model, inputs = model_of(name), inputs_of(name)
    together = dk.generate(model, **inputs, max_new_tokens=8, do_sample=True, seed=[3, 4])
    swapped = {key: value.flip(0) for key, value in inputs.items()}
    other = dk.generate(model, **swapped, max_new_tokens=8, do_sample=True, seed=[4, 3])
    assert torch.equal(together, other.flip(0))


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}, {"do_sample": True, "top_k": 5, "seed": [3, 4]}])
@pytest.mark.parametrize(
    "values", [{"encoder_repetition_penalty": [1.2, 4.0]}, {"encoder_no_repeat_ngram_size": [2, 1]}]
)
def test_rows_with_an_encoders_penalty_of_their_own_are_as_if_alone(values, more):
    ((name, by_row),) = values.items()
    model, inputs = model_of("t5"), inputs_of("t5")
    together = dk.generate(model, **inputs, **values, **more, max_new_tokens=6, min_new_tokens=6)
    for row, value in enumerate(by_row):
        given = {key: tensor[row : row + 1] for key, tensor in inputs.items()}
        own = {**more, "seed": more["seed"][row]} if "seed" in more else more
        alone = dk.generate(model, **given, **own, **{name: value}, max_new_tokens=6, min_new_tokens=6)
        assert torch.equal(together[row], alone[0])


def test_an_encoders_penalty_without_its_tokens_is_refused():
    model, inputs = model_of("whisper"), inputs_of("whisper")
    with pytest.raises(dk.ParameterError, match=r"encoder_repetition_penalty has no tokens"):
        dk.generate(model, **inputs, encoder_repetition_penalty=1.3, max_new_tokens=3)

"""Where transformers is wrong, decodekit is right; each test shows both."""

import contextlib

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import MarkovModel, tiny_llama
from transformers import DynamicCache, StoppingCriteriaList, TemperatureLogitsWarper

from tests.parity.architectures import inputs_of, model_of
from tests.parity.differential import MODELS, VOCAB, both, prompts_of


def test_a_temperature_of_the_callers_is_not_applied_twice():
    """transformers applies its own as well."""
    arguments = {**prompts_of((4, 2)), "do_sample": True, "top_k": 0, "max_new_tokens": 2}
    arguments |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    theirs, ours = both(
        MODELS["llama"], **arguments, temperature=0.5, logits_processor=[TemperatureLogitsWarper(2.0)]
    )
    torch.testing.assert_close(ours.scores[0], ours.logits[0] / 2)
    torch.testing.assert_close(theirs.scores[0], theirs.logits[0])
    assert ours.stats.chains == ("TemperatureLogitsWarper",)


def test_beams_are_padded_with_the_pad_id_when_it_is_0():
    """transformers takes a pad id of 0 for none, and fills with EOS."""
    arguments = {**prompts_of((4, 2)), "num_beams": 3, "max_new_tokens": 8, "eos_token_id": [2, 5, 9, 11, 14]}
    theirs, ours = both(MODELS["llama"], **arguments)
    assert not torch.equal(theirs, ours)
    ended = torch.isin(theirs, torch.tensor([2, 5, 9, 11, 14])).int()
    ended[:, :4] = 0
    assert torch.equal(theirs.masked_fill(ended.cumsum(1) - ended > 0, 0), ours)


def test_rows_that_end_by_a_criterion_are_padded():
    """Without EOS transformers goes on writing into rows that a criterion has ended."""

    def second_row_at_once(input_ids, scores):
        assert len(input_ids) == 2
        return torch.tensor([False, True])

    inputs = prompts_of((4, 4))
    arguments = {"max_new_tokens": 6, "eos_token_id": None, "pad_token_id": 0}
    seen = dk.generate(MODELS["llama"], **inputs, **arguments, stopping_criteria=[second_row_at_once])
    theirs = MODELS["llama"].generate(
        **inputs, **arguments, stopping_criteria=StoppingCriteriaList([second_row_at_once])
    )
    assert torch.equal(seen[0], theirs[0])
    assert seen[1, 4:].tolist() == [int(theirs[1, 4]), 0, 0, 0, 0, 0]
    assert (theirs[1, 5:] != 0).any()


def test_several_new_tokens_go_on_from_a_state_as_one_text():
    """transformers feeds them at once, for which Jamba's forward starts from another state."""
    model = model_of("jamba")
    text = torch.randint(3, 30, (2, 12), generator=torch.Generator().manual_seed(1))
    asked = {"output_logits": True, "output_hidden_states": True, "return_dict_in_generate": True}
    arguments = {"attention_mask": torch.ones_like(text), "max_new_tokens": 5, **asked}
    whole = dk.generate(model, text, **arguments)
    found = []
    for generate in (type(model).generate, dk.generate):
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            model(text[:, :6], past_key_values=cache, use_cache=True)
        found.append(generate(model, text, past_key_values=cache, **arguments))
    theirs, ours = found
    assert (theirs.logits[0] - whole.logits[0]).abs().max() > 0.1
    assert torch.equal(ours.sequences, whole.sequences)
    torch.testing.assert_close(ours.logits[0], whole.logits[0], atol=1e-4, rtol=1e-4)
    for new, full in zip(ours.hidden_states[0], whole.hidden_states[0], strict=True):
        torch.testing.assert_close(new[:, -6:], full[:, -6:], atol=1e-4, rtol=1e-4)


def test_padding_does_not_change_a_row_in_float64():
    model = tiny_llama(VOCAB)
    inputs = prompts_of((7, 1, 4))
    together = dk.generate(model, **inputs, max_new_tokens=10, return_dict_in_generate=True)
    for row, length in enumerate((7, 1, 4)):
        alone = dk.generate(
            model,
            input_ids=inputs["input_ids"][row : row + 1, 7 - length :],
            max_new_tokens=10,
            return_dict_in_generate=True,
        )
        count = alone.sequences.shape[1] - length
        assert torch.equal(alone.sequences[0, length:], together.sequences[row, 7 : 7 + count])
        torch.testing.assert_close(
            alone.token_logprobs[0], together.token_logprobs[row, :count], rtol=0, atol=1e-9
        )


@pytest.mark.parametrize(
    "arguments",
    [
        {"no_repeat_ngram_size": 1},
        {"encoder_no_repeat_ngram_size": 1},
        {"encoder_repetition_penalty": 1.5},
    ],
    ids=str,
)
def test_padding_is_no_token_of_the_prompt(arguments):
    """transformers forbids or rewards the pad id in the rows that are padded."""
    kept = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_scores": True}
    theirs, ours = both(MODELS["llama"], **prompts_of((4, 2)), **kept, output_logits=True, **arguments)
    torch.testing.assert_close(theirs.scores[0][:, 1:], ours.scores[0][:, 1:], atol=1e-4, rtol=1e-4)
    assert ours.scores[0][1, 0] == ours.logits[0][1, 0]
    assert theirs.scores[0][1, 0] != theirs.logits[0][1, 0]


def test_a_mask_is_never_guessed():
    ids = torch.tensor([[0, 0, 5, 6]])
    with pytest.raises(
        dk.ParameterError, match="attention_mask is missing and input_ids holds pad_token_id=0"
    ):
        dk.generate(MODELS["llama"], input_ids=ids, max_new_tokens=2)
    tokens = dk.generate(
        MODELS["llama"], input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=2
    )
    assert tokens.shape[1] <= 6


def test_pad_may_be_eos():
    model = tiny_llama(VOCAB, pad_token_id=2)
    inputs = prompts_of((5, 2))
    inputs["input_ids"] = inputs["input_ids"] + 2 * (1 - inputs["attention_mask"])
    together = dk.generate(model, **inputs, max_new_tokens=6)
    alone = dk.generate(model, input_ids=inputs["input_ids"][1:, 3:], max_new_tokens=6)
    assert together[1, 5:].tolist()[: alone.shape[1] - 2] == alone[0, 2:].tolist()


def test_right_padding_and_holes_are_what_the_mask_says():
    model = tiny_llama(VOCAB)
    left = dk.generate(
        model,
        input_ids=torch.tensor([[0, 0, 5, 6, 7]]),
        attention_mask=torch.tensor([[0, 0, 1, 1, 1]]),
        max_new_tokens=6,
    )
    holes = dk.generate(
        model,
        input_ids=torch.tensor([[5, 0, 6, 7, 0]]),
        attention_mask=torch.tensor([[1, 0, 1, 1, 0]]),
        max_new_tokens=6,
    )
    assert left[0, 5:].tolist() == holes[0, 5:].tolist()


class Recorder:
    """A streamer that counts what it gets."""

    def __init__(self):
        self.puts, self.ends = 0, 0

    def put(self, value):
        self.puts += 1

    def end(self):
        self.ends += 1


def test_a_sampled_beam_search_streams():
    """transformers gives its streamer the prompt and nothing more, not even the end: a reader hangs."""
    model, arguments = model_of("gpt2"), {**inputs_of("gpt2"), "num_beams": 2, "do_sample": True}
    theirs, ours = Recorder(), Recorder()
    with contextlib.suppress(ValueError):  # some versions refuse it
        model.generate(**arguments, max_new_tokens=4, streamer=theirs)
    dk.generate(model, **arguments, max_new_tokens=4, streamer=ours)
    assert theirs.ends == 0
    assert ours.ends == 1
    assert ours.puts > 1


def test_a_criterion_holds_inside_a_draft():
    """transformers asks criteria after the whole accepted block, and overshoots."""
    model = MarkovModel(torch.eye(6, dtype=torch.float64).roll(1, 1) * 9, eos_token_id=None)
    ids = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1]])  # what follows stands there: every draft is right

    def stop(tokens, scores):
        return torch.tensor([tokens.shape[1] >= 10])

    arguments = {"max_new_tokens": 12, "stopping_criteria": [stop], "attention_mask": torch.ones_like(ids)}
    drafts = {"prompt_lookup_num_tokens": 4}
    assert model.generate(ids, **arguments, **drafts).shape[1] > 10
    ours = dk.generate(model, ids, **arguments, **drafts)
    assert torch.equal(ours, dk.generate(model, ids, **arguments))
    assert ours.shape[1] == 10


@pytest.mark.parametrize("setting", [{}, {"do_sample": True}, {"num_beams": 2}], ids=str)
@pytest.mark.parametrize("name", ["bart", "qwen3"])
def test_transition_scores_are_the_log_probabilities(name, setting):
    """Here both are right; ours need no scores of the whole vocabulary."""
    model = model_of(name)
    asked = {"return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 5}
    out = dk.generate(model, **inputs_of(name), **setting, **asked)
    beams = {"beam_indices": out.beam_indices} if "num_beams" in setting else {"normalize_logits": True}
    found = model.compute_transition_scores(out.sequences, out.scores, **beams).double()
    live = out.token_logprobs != 0
    torch.testing.assert_close(found[live], out.token_logprobs[live], atol=1e-4, rtol=1e-4)


@pytest.mark.real_model
def test_healed_prompts_are_those_of_transformers():
    model, tokenizer = dk.load()
    for text in ('The link is <a href="http:', "Paris is the cap"):
        inputs = tokenizer(text, return_tensors="pt")
        arguments = {**inputs, "token_healing": True, "tokenizer": tokenizer, "max_new_tokens": 4}
        assert torch.equal(model.generate(**arguments), dk.generate(model, **arguments))

import decodekit as dk
import pytest
import torch
from decodekit.adapters import to_transformers
from decodekit.testing.models import tiny_llama

IDS = torch.tensor([[0, 0, 3, 4], [5, 6, 7, 8]])
MASK = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
ARGUMENTS = {
    "input_ids": IDS,
    "attention_mask": MASK,
    "max_new_tokens": 8,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CALLS = [
    {},
    {"do_sample": True, "temperature": 0.8, "top_k": 0},
    {"do_sample": True, "num_return_sequences": 2},
]


@pytest.fixture(scope="module")
def model():
    return tiny_llama(dtype=torch.float32)


def both(model, processor, adapter, **more):
    """Tokens from transformers with the adapter, and from us with the processor."""
    outputs = []
    for generate, item in (
        (model.generate, adapter),
        (lambda **given: dk.generate(model, **given), processor),
    ):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            outputs.append(generate(**{**ARGUMENTS, **more}, logits_processor=[item]))
    return outputs


@pytest.mark.parametrize("more", CALLS, ids=["greedy", "sample", "two each"])
def test_transformers_decodes_as_we_do(model, processor, more):
    theirs, ours = both(model, processor, to_transformers(processor, attention_mask=MASK), **more)
    assert torch.equal(theirs, ours)
    assert not torch.equal(theirs, model.generate(**ARGUMENTS)) or type(processor).__name__ == "Tire"


def test_beams_are_followed(model, processor):
    adapter = to_transformers(processor, attention_mask=MASK)
    theirs, ours = both(model, processor, adapter, num_beams=3, num_return_sequences=2, pad_token_id=9)
    assert torch.equal(theirs, ours)


def test_one_adapter_serves_one_call_after_the_other(model, processor):
    adapter = to_transformers(processor)
    prompt = {"max_new_tokens": 5, "eos_token_id": None, "pad_token_id": 0}
    for ids in (IDS[1:], IDS[1:, :3], torch.cat([IDS[1:], IDS[1:]], dim=1)):
        fresh = model.generate(ids, **prompt, logits_processor=[to_transformers(processor)])
        assert torch.equal(model.generate(ids, **prompt, logits_processor=[adapter]), fresh)


def test_a_built_in_is_named(model):
    theirs = model.generate(
        **ARGUMENTS, logits_processor=[to_transformers(("presence_penalty", {"presence_penalty": 1.5}))]
    )
    ours = dk.generate(model, **ARGUMENTS, processors=[("presence_penalty", {"presence_penalty": 1.5})])
    assert torch.equal(theirs, ours)


def test_a_mask_of_other_prompts_is_refused(model, processor):
    adapter = to_transformers(processor, attention_mask=MASK[:, :3])
    with pytest.raises(dk.ParameterError, match=r"attention_mask has shape \[2, 3\] and the call 2 rows"):
        model.generate(**ARGUMENTS, logits_processor=[adapter])


@pytest.mark.parametrize(("spec", "error"), [("top_q", dk.UnknownNameError), (3, dk.ParameterError)])
def test_what_is_no_processor_is_refused(spec, error):
    with pytest.raises(error):
        to_transformers(spec)

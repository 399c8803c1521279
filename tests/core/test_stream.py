import copy
import itertools

import decodekit as dk
import numpy as np
import pytest
import torch
from decodekit.stream import _Text
from decodekit.testing.models import MarkovModel
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.parity.architectures import model_of


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def model(tiny_folder):
    return AutoModelForCausalLM.from_pretrained(tiny_folder)


ARGUMENTS = {"max_new_tokens": 8, "strategy": "sample", "seed": 3}


def texts_of(events):
    texts = {}
    for event in events:
        if not isinstance(event, dk.ResultEvent):
            texts[event.row] = texts.get(event.row, "") + event.text
    return texts


def test_events_add_up_to_the_result(model, tokenizer):
    events = list(dk.stream(model, tokenizer, "Once upon", num_return_sequences=2, **ARGUMENTS))
    inputs = tokenizer("Once upon", return_tensors="pt")
    expected = dk.generate(model, **inputs, num_return_sequences=2, return_dict_in_generate=True, **ARGUMENTS)
    result = events[-1].output
    assert torch.equal(result.sequences, expected.sequences)
    assert torch.equal(result.token_logprobs, expected.token_logprobs)
    width = inputs["input_ids"].shape[1]
    for row in range(2):
        tokens = [event for event in events if isinstance(event, dk.TokenEvent) and event.row == row]
        ended = [event for event in events if isinstance(event, dk.FinishedEvent) and event.row == row]
        count = len(tokens)
        assert [event.token for event in tokens] == expected.sequences[row, width : width + count].tolist()
        assert [event.logprob for event in tokens] == expected.token_logprobs[row, :count].tolist()
        assert [event.reason for event in ended] == [expected.finish_reasons[row]]
        said = texts_of(events)[row]
        assert said == tokenizer.decode([event.token for event in tokens], skip_special_tokens=True)


PROMPTS = {
    "text": "Hi",
    "texts": ["Hi", "Hello there"],
    "chat": [{"role": "user", "content": "Hi"}],
    "ids": torch.tensor([72, 105]),
    "batch of ids": torch.tensor([[72, 105]]),
    "encoded": {"input_ids": torch.tensor([[72, 105]]), "attention_mask": torch.tensor([[1, 1]])},
    "encoded as lists": {"input_ids": [[72, 105]], "attention_mask": [[1, 1]], "token_type_ids": None},
    "encoded as one list": {"input_ids": [72, 105], "attention_mask": (1, 1)},
    "encoded by numpy": {"input_ids": np.array([72, 105]), "attention_mask": np.array([1, 1])},
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_prompt_may_be_many_things(model, tokenizer, kind):
    *_, last = dk.stream(model, tokenizer, PROMPTS[kind], **ARGUMENTS)
    assert last.output.sequences.shape[0] == (2 if kind == "texts" else 1)


def test_what_the_tokenizer_returned_may_be_tensors_lists_or_arrays(model, tokenizer):
    *_, expected = dk.stream(model, tokenizer, PROMPTS["batch of ids"], **ARGUMENTS)
    for kind in (kind for kind in PROMPTS if kind.startswith("encoded")):
        *_, last = dk.stream(model, tokenizer, PROMPTS[kind], **ARGUMENTS)
        assert torch.equal(last.output.sequences, expected.output.sequences)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"prompt": "x"}, r"prompt\['prompt'\]='x' is not allowed.* give a text itself"),
        ({"input_ids": [[5], [6, 7]]}, r"prompt\['input_ids'\]=.*padding=True"),
        ({"input_ids": [["a"]]}, r"prompt\['input_ids'\]="),
        ({"input_ids": 5}, r"input_ids is of shape \[\]"),
    ],
    ids=str,
)
def test_what_no_tokenizer_returns_is_refused(model, tokenizer, prompt, message):
    with pytest.raises(dk.ParameterError, match=message):
        dk.stream(model, tokenizer, prompt)


@pytest.mark.parametrize("name", ["inputs", "input_ids", "attention_mask", "inputs_embeds"])
def test_what_is_in_the_prompt_is_not_given_beside_it(model, tokenizer, name):
    with pytest.raises(dk.ParameterError, match=f"^{name}= has no place beside prompt.* as the prompt"):
        dk.stream(model, tokenizer, "xyz", **{name: torch.tensor([[3, 4, 5]])})


def test_texts_are_padded_and_do_not_disturb_each_other(model, tokenizer):
    together = texts_of(dk.stream(model, tokenizer, PROMPTS["texts"], **ARGUMENTS))
    for row, text in enumerate(PROMPTS["texts"]):
        assert texts_of(dk.stream(model, tokenizer, text, **ARGUMENTS))[0] == together[row]


def test_texts_for_an_encoder_do_not_disturb_each_other(tokenizer):
    """The positions of an encoder may count from the first column, so its texts are padded on the right."""
    pair, letters = model_of("bart"), copy.deepcopy(tokenizer)
    letters.pad_token = "!"  # the model has 60 tokens, which are signs, digits and capital letters
    arguments = {"max_new_tokens": 5, "seed": 3, "do_sample": True}
    *_, together = dk.stream(pair, letters, ["A", "ONCE"], **arguments)
    for row, text in enumerate(["A", "ONCE"]):
        *_, single = dk.stream(pair, letters, text, **arguments)
        assert torch.allclose(together.output.token_logprobs[row], single.output.token_logprobs[0])


@pytest.mark.parametrize("prompt", [[], 7, [1, 2], [{"content": "x"}], ["x", 1]], ids=str)
def test_another_prompt_is_refused_at_once(model, tokenizer, prompt):
    with pytest.raises(dk.ParameterError, match="prompt="):
        dk.stream(model, tokenizer, prompt)


def test_what_is_wrong_is_said_before_the_first_event(model, tokenizer):
    with pytest.raises(dk.UnknownNameError):
        dk.stream(model, tokenizer, "x", strategy="gredy")


def test_a_chat_without_a_template_is_refused(model, tokenizer):
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    with pytest.raises(dk.ParameterError, match="no chat template"):
        dk.stream(model, plain, PROMPTS["chat"])


def test_a_stream_runs_only_as_it_is_read(model, tokenizer):
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    try:
        events = dk.stream(model, tokenizer, "Hi", **(ARGUMENTS | {"max_new_tokens": 50}))
        assert not calls
        for _ in range(3):
            next(events)
        before = len(calls)
        assert before <= 4
        events.close()
        assert len(calls) == before
        with pytest.raises(StopIteration):
            next(events)
    finally:
        handle.remove()


def test_gradients_are_the_readers_own(model, tokenizer):
    events = dk.stream(model, tokenizer, "Hi", **ARGUMENTS)
    next(events)
    assert torch.is_grad_enabled()
    assert not any(parameter.grad_fn for parameter in model.parameters())


def test_a_constraint_works_here_too(model, tokenizer):
    events = list(
        dk.stream(model, tokenizer, "Once", prefix_allowed_tokens_fn=lambda row, ids: [65, 66], **ARGUMENTS)
    )
    assert {event.token for event in events if isinstance(event, dk.TokenEvent)} <= {65, 66}
    assert events[-1].output.stats.chains[0].startswith("prefix_allowed_tokens_fn")


def test_a_model_that_wraps_generate_is_refused():
    with pytest.raises(dk.UnsupportedArgumentError, match=r"Blip2.*does more in generate"):
        dk.stream(model_of("blip2"), None, torch.tensor([[5]]))


def test_guidance_streams(model, tokenizer):
    arguments = {"guidance_scale": 2.0, "negative_prompt_ids": torch.tensor([[7]]), "max_new_tokens": 4}
    *_, last = dk.stream(model, tokenizer, torch.tensor([5, 6]), **arguments)
    assert torch.equal(last.output.sequences, dk.generate(model, torch.tensor([[5, 6]]), **arguments))


def test_stop_strings_need_no_tokenizer_argument(model, tokenizer):
    table = torch.zeros(300, 300)
    order = tokenizer("ab.cd")["input_ids"]
    for one, two in itertools.pairwise(order):
        table[one, two] = 50.0
    speller = MarkovModel(table, eos_token_id=257, pad_token_id=257)
    events = list(dk.stream(speller, tokenizer, "a", max_new_tokens=9, stop_strings="."))
    assert texts_of(events) == {0: "b."}
    assert events[-2].reason == "stop_string"


@given(st.text(max_size=30))
def test_pieces_never_change_and_add_up(text):
    """Whatever the characters, also ones of several tokens, what was said stays said."""
    tokenizer = BYTES["tokenizer"]
    ids = tokenizer(text)["input_ids"]
    pieces = _Text(tokenizer, skip_special_tokens=True)
    said = ""
    for count, token in enumerate(ids, start=1):
        said += pieces.add(token)
        assert tokenizer.decode(ids[:count]).startswith(said)
    assert said + pieces.rest() == tokenizer.decode(ids)


BYTES = {}


@pytest.fixture(autouse=True, scope="module")
def _bytes(tokenizer):
    BYTES["tokenizer"] = tokenizer


def test_a_tokenizer_is_asked_for_at_once(model, tokenizer):
    for wrong in (None, model):
        with pytest.raises(dk.ParameterError, match="stream needs the model's tokenizer"):
            dk.stream(model, wrong, torch.tensor([5]))
    with pytest.raises(dk.ParameterError, match="has no language model's head"):
        dk.stream(tokenizer, tokenizer, torch.tensor([5]))

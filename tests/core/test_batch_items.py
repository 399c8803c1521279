import decodekit as dk
import pytest
import torch
from decodekit.batch_items import read_item
from transformers import AutoTokenizer

HI = [39, 72]  # in the order of the tokenizer
CHAT = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return AutoTokenizer.from_pretrained(tiny_folder)


def test_an_object_has_values_of_its_own(tokenizer):
    value = {"prompt": "Hi", "id": 3, "seed": 4, "temperature": 0.5}
    item = read_item(value, tokenizer, {"temperature"})
    assert (item.ids, item.id, item.seed, item.settings) == (HI, 3, 4, {"temperature": 0.5})


@pytest.mark.parametrize("value", ["Hi", HI, torch.tensor(HI), {"prompt": HI}], ids=str)
def test_a_prompt_is_a_text_or_ids(tokenizer, value):
    assert read_item(value, tokenizer, ()).ids == HI


@pytest.mark.parametrize("value", [CHAT, {"messages": CHAT}], ids=str)
def test_a_chat_goes_through_the_template(tokenizer, value):
    assert read_item(value, tokenizer, ()).ids != HI
    assert len(read_item(value, tokenizer, ()).ids) == len("<user>Hi<assistant>")


WRONG = {
    "7 is no prompt": 7,
    "None is no prompt": None,
    r"\[1\.5\] is no prompt": [1.5],
    r"\[True\] is no prompt": [True],
    "tensor.* is no prompt": torch.tensor([[1, 2]]),
    r"tensor\(\[ ?True, False\]\) is no prompt": torch.tensor([True, False]),
    r"tensor\(\[1\.\]\) is no prompt": torch.tensor([1.0]),
    r"tensor\(5\) is no prompt": torch.tensor(5),
    "{'a': 1} is no prompt": {"prompt": {"a": 1}},
    "the prompt is empty": "",
    "the prompt is empty: give": {"prompt": []},
    "has both": {"prompt": "a", "messages": CHAT},
    "has only 'promt'.* Did you mean 'prompt'": {"promt": "a"},
    "has only {}": {},
    "'tempreature' .* Did you mean 'temperature'": {"prompt": "a", "tempreature": 1},
    "seed=1.5 is not allowed": {"prompt": "a", "seed": 1.5},
    "seed=True is not allowed": {"prompt": "a", "seed": True},
    "messages='Hi' is not allowed": {"messages": "Hi"},
    r"messages=\[\] is not allowed": {"messages": []},
    r"messages=\[{'role': 'user'}\] is not allowed": {"messages": [{"role": "user"}]},
    "can't read the prompt": "\ud800",
}


@pytest.mark.parametrize("message", WRONG)
def test_anything_else_is_refused_with_what_would_do(tokenizer, message):
    with pytest.raises(dk.ParameterError, match=message):
        read_item(WRONG[message], tokenizer, {"temperature"})


def test_a_long_value_is_shown_in_short(tokenizer):
    with pytest.raises(dk.ParameterError) as caught:
        read_item({"prompt": {"x": "y" * 5000}}, tokenizer, ())
    assert len(str(caught.value)) < 300


def test_what_a_template_refuses_is_told(tiny_folder):
    strict = AutoTokenizer.from_pretrained(tiny_folder)
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(dk.ParameterError, match="refuses these messages: roles must alternate"):
        read_item(CHAT, strict, ())
    strict.chat_template = None
    with pytest.raises(dk.ParameterError, match="has no chat template"):
        read_item(CHAT, strict, ())

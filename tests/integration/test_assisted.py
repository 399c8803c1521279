"""Every drafter on the default model: at temperature 0 the tokens are greedy decoding's.

The thorough profile takes all prompts, in batches of 1, 3 and 8 by turns.
"""

import functools
import itertools
import os

import decodekit as dk
import pytest
import torch

THOROUGH = os.environ.get("DECODEKIT_TEST_PROFILE") == "thorough"
SIZES = (1, 3, 8) if THOROUGH else (3,)
NEW = 10 if THOROUGH else 5
TIE = 1e-4
"""Passes of different shapes round differently: nearer logits than this may swap."""
PROMPTS = [
    "Once upon a time, in a small village by the sea, there lived",
    "The capital of France is",
    "red, green, blue, white, red, green, blue, white, red,",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "The three states of matter are",
    "Dear Sir or Madam,\n\nI am writing to",
    "1, 2, 3, 4, 5, 6, 7,",
    "Water boils at a temperature of",
    "To make a cup of tea, first",
    "import numpy as np\n\nx = np.",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
    "In 1969, the first humans",
    "Photosynthesis is the process by which",
    "She opened the door and",
    "The opposite of hot is",
    "Monday, Tuesday, Wednesday,",
    "Roses are red, violets are",
    "A prime number is a number that",
    "My favourite book is",
    "The largest planet in our solar system is",
    "for i in range(10):\n    print(",
    "It was a dark and stormy night;",
    "The mitochondria is the",
    "Q: What is the square root of 81?\nA:",
    "Ingredients:\n- 2 eggs\n- 1 cup of flour\n-",
    "The president of the United States lives in",
    "SELECT name, age FROM users WHERE",
    "Gravity is a force that",
    "If it rains tomorrow, we will",
    "The human body has",
    "# A list of fruits\nfruits = ['apple',",
    "Thank you for your letter of",
    "The Great Wall of China was built",
    "An apple a day keeps",
    "Light travels at a speed of",
    "He looked at the map, and then",
    "<html>\n<head>\n<title>",
    "The chemical symbol of gold is",
    "To be, or not to be,",
    "In a galaxy far, far",
    "The train leaves the station at",
    "Shakespeare wrote",
    "There are seven days in a week:",
    "One morning, when Gregor Samsa woke",
    "The Pacific Ocean is",
    "Step 1: Turn off the computer.\nStep 2:",
    "The sum of the angles of a triangle is",
    "Bees are important because they",
    "A B C D E F G H I",
    "Once the experiment was over, the scientists",
]
assert len(PROMPTS) == 50


@functools.cache
def loaded():
    return dk.load()


def decoded(prompts, **arguments):
    model, tokenizer = loaded()
    inputs = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
    arguments = {"max_new_tokens": NEW, "min_new_tokens": NEW, "return_dict_in_generate": True, **arguments}
    output = dk.generate(model, **inputs, **arguments)
    return output.sequences[:, inputs.input_ids.shape[1] :].tolist(), output.stats


def batches():
    """The prompts in batches, each of the sizes in its turn."""
    start, sizes = 0, itertools.cycle(SIZES)
    prompts = PROMPTS if THOROUGH else PROMPTS[1:4]
    while start < len(prompts):
        size = next(sizes)
        yield prompts[start : start + size]
        start += size


@functools.cache
def greedy(prompts):
    return decoded(prompts)[0]


def gap(prompt, tokens):
    """How far apart the two best logits are after the prompt and the tokens."""
    model, tokenizer = loaded()
    ids = torch.tensor([[*tokenizer(prompt)["input_ids"], *tokens]])
    with torch.no_grad():
        first, second = model(ids).logits[0, -1].topk(2).values.tolist()
    return first - second


def drafters():
    model, tokenizer = loaded()
    spelled = {"model": model, "tokenizer": tokenizer}
    return {
        "draft_model": {"model": model},
        "early_exit": {"layers": 24},
        "prompt_lookup": {},
        "quantized": {"quant": "bnb-nf4"},
        "suffix_automaton": {},
        "universal": spelled,
        "vocab_intersection": spelled,
    }


@pytest.mark.real_model
@pytest.mark.parametrize("name", sorted({*dk.drafters()} - {"multi_token"}))  # of heads, which it has not
def test_at_temperature_0_the_tokens_are_greedys(name):
    if name == "quantized":
        pytest.importorskip("bitsandbytes")
        if not THOROUGH:
            pytest.skip("four bits take long on a processor without instructions for them")
    drafter = (name, drafters()[name])
    assisted = {"strategy": "assisted", "drafter": drafter, "num_assistant_tokens": 4, "adaptive": False}
    differences, accepted = [], 0
    for prompts in batches():
        found, stats = decoded(prompts, **assisted, tokenizer=loaded()[1])
        accepted += stats.accepted
        for prompt, tokens, wanted in zip(prompts, found, greedy(tuple(prompts)), strict=True):
            place = next((n for n in range(NEW) if tokens[n] != wanted[n]), None)
            if place is not None:
                differences.append((prompt, place, gap(prompt, wanted[:place])))
    print(name, "accepted", accepted, "differences", differences)  # the list of ties
    assert all(distance < TIE for _, _, distance in differences), differences
    assert accepted

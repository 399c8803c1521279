import decodekit as dk
import pytest

from tests.bench import batches


def answers():
    return batches.Answers.drawn(batches.BATCH, 24, 32)


def test_answers_end_at_their_own_lengths(tiny):
    model, tokenizer = tiny
    found = dk.generate_batch(
        model,
        tokenizer,
        answers().prompts,
        strategy="greedy",
        stopping_criteria=[answers()],
        max_new_tokens=32,
        min_new_tokens=32,
    )
    lengths = [size for _, size in answers().lengths.values()]
    assert [len(result.tokens) for result in found] == lengths
    assert len(set(lengths)) > 8


@pytest.mark.usefixtures("tiny")
def test_a_batch_has_its_padding_on_the_left():
    batch = answers().batch(0, 32)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"].sum(1).tolist() == [len(prompt) for prompt in answers().prompts]
    assert batch["attention_mask"][:, -1].all()

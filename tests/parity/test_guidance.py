"""Guidance by a negative prompt: transformers' tokens, and what its one stateful processor can't do."""

import decodekit as dk
import pytest
import torch

from tests.parity.architectures import inputs_of, model_of
from tests.parity.differential import both

SCALE = 2.5


def ids_of(rows=2):
    """Prompts without padding: transformers gives none a mask in the negative stream."""
    return torch.randint(5, 50, (rows, 5), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("negative", [None, torch.tensor([[9, 8, 7], [6, 5, 20]])], ids=["last token", "own"])
@pytest.mark.parametrize("setting", [{}, {"do_sample": True}, {"use_cache": False}], ids=str)
def test_the_same_tokens(negative, setting):
    arguments = {"input_ids": ids_of(), "negative_prompt_ids": negative, "guidance_scale": SCALE, **setting}
    theirs, ours = both(
        model_of("qwen3"),
        **arguments,
        max_new_tokens=8,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    assert torch.equal(theirs.sequences, ours.sequences)
    for field in ("scores", "logits"):
        for one, other in zip(getattr(theirs, field), getattr(ours, field), strict=True):
            live = ~((other == 0).any(1) & other.isneginf().any(1))
            torch.testing.assert_close(other[live], one[live], atol=2e-4, rtol=1e-4)


def guided(row, negative, count):
    """Greedy decoding by full forwards of both texts."""
    model, row, negative = model_of("qwen3"), list(row), list(negative)
    new = []
    for _ in range(count):
        with torch.no_grad():
            c, u = (model(torch.tensor([text])).logits[0, -1].log_softmax(-1) for text in (row, negative))
        token = int((u + SCALE * (c - u)).argmax())
        row, negative, new = [*row, token], [*negative, token], [*new, token]
    return new


@pytest.mark.parametrize("drafts", [{}, {"prompt_lookup_num_tokens": 4}], ids=["plain", "drafts"])
def test_ragged_rows_and_drafts(drafts):
    model, inputs = model_of("qwen3"), inputs_of("qwen3")
    negative, shown = torch.tensor([[3, 3, 7], [6, 5, 20]]), torch.tensor([[0, 0, 1], [1, 1, 1]])
    ours = dk.generate(
        model,
        **inputs,
        negative_prompt_ids=negative,
        negative_prompt_attention_mask=shown,
        guidance_scale=SCALE,
        max_new_tokens=10,
        eos_token_id=None,
        **drafts,
    )
    for row in range(2):
        prompt = inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()
        expected = guided(prompt, negative[row][shown[row].bool()].tolist(), 10)
        assert ours[row, 6:].tolist() == expected


def test_beams_have_the_score_of_their_tokens():
    model, ids = model_of("qwen3"), ids_of(1)
    out = dk.generate(
        model,
        ids,
        guidance_scale=1.3,
        num_beams=3,
        max_new_tokens=4,
        eos_token_id=None,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    row, negative, total = ids[0].tolist(), ids[0, -1:].tolist(), 0.0
    for token in out.sequences[0, 5:].tolist():
        with torch.no_grad():
            c, u = (model(torch.tensor([text])).logits[0, -1].log_softmax(-1) for text in (row, negative))
        total += float((u + 1.3 * (c - u))[token])
        row, negative = [*row, token], [*negative, token]
    assert out.sequences_scores[0] == pytest.approx(total, abs=1e-4)


def test_one_negative_prompt_serves_all_and_copies_share_it():
    model, ids = model_of("qwen3"), ids_of()
    arguments = {"guidance_scale": SCALE, "do_sample": True, "seed": 5, "max_new_tokens": 6}
    one = dk.generate(
        model, ids, negative_prompt_ids=torch.tensor([[9, 8]]), num_return_sequences=2, **arguments
    )
    each = dk.generate(
        model, ids, negative_prompt_ids=torch.tensor([[9, 8], [9, 8]]), num_return_sequences=2, **arguments
    )
    assert torch.equal(one, each)

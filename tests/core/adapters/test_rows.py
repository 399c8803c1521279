import pytest
import torch
from decodekit import CapabilityError, StatefulProcessor
from decodekit.adapters.rows import Rows


def test_rows_give_what_the_core_gives(processor, row, expected):
    prompt, tokens, logits = row
    rows = Rows(processor)
    for step, x in enumerate(logits):
        out = rows(x[None], [prompt + tokens[:step]], [len(prompt)])
        torch.testing.assert_close(out[0], expected[step], rtol=0, atol=0)


def test_rows_may_be_ragged_reordered_and_forked(processor, row, expected):
    prompt, tokens, logits = row
    rows = Rows(processor)
    rows(torch.stack([logits[0], logits[0]]), [prompt, [5, 0, 0]], [2, 3])
    out = rows(
        torch.stack([logits[1], logits[1], logits[1]]),
        [[5, 0, 0, 1], prompt + tokens[:1], [*prompt, 5]],
        [3, 2, 2],
    )
    torch.testing.assert_close(out[1], expected[1], rtol=0, atol=0)


def test_the_rows_of_a_draft_are_one_call(processor, row, expected):
    prompt, tokens, logits = row
    drafts = [prompt + tokens[:step] for step in range(len(logits))]
    out = Rows(processor)(logits, drafts, [len(prompt)] * len(logits))
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_half_precision_is_computed_in_float32(processor, row, expected):
    prompt, _, logits = row
    out = Rows(processor)(logits[:1].bfloat16(), [prompt], [2])
    assert out.dtype == torch.bfloat16


def test_a_token_that_was_not_shown_is_an_error_where_a_state_needs_it(processor, row):
    prompt, tokens, logits = row
    rows = Rows(processor)
    rows(logits[:1], [prompt], [2])
    if not isinstance(processor, StatefulProcessor):
        rows(logits[:1], [prompt + tokens], [2])
        return
    with pytest.raises(CapabilityError, match="tire keeps a state for each row, and this engine"):
        rows(logits[:1], [prompt + tokens], [2])


def test_old_states_are_forgotten(row):
    from tests.core.adapters.conftest import Tire

    rows = Rows(Tire())
    for token in range(200):
        rows(row[2][:1], [[token % 6, token // 6]], [2])
    assert len(rows._states) == 64

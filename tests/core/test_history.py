"""A history agrees with plain Python lists after any sequence of operations."""

import pytest
import torch
from decodekit import History
from decodekit.history import shift_right
from hypothesis import given
from hypothesis import strategies as st

tokens = st.lists(st.integers(0, 9), max_size=4)
batches = st.lists(st.tuples(tokens, tokens), min_size=1, max_size=4)


def make(rows):
    return History.of([prompt for prompt, _ in rows], [new for _, new in rows])


def assert_agrees(history, rows):
    """``rows`` is the oracle: (prompt, generated tokens) of each row."""
    width = history.tokens.shape[1]
    assert len(history) == len(rows)
    assert history.tokens.dtype == history.pads.dtype == history.prompt_lengths.dtype == torch.int64
    assert [history.row(index) for index in range(len(rows))] == [prompt + new for prompt, new in rows]
    assert history.lengths.tolist() == [len(prompt + new) for prompt, new in rows]
    assert history.new_lengths.tolist() == [len(new) for _, new in rows]
    for index, (prompt, new) in enumerate(rows):
        pad = width - len(prompt + new)
        assert history.mask[index].tolist() == [False] * pad + [True] * len(prompt + new)
        assert history.generated_mask[index].tolist() == [False] * (width - len(new)) + [True] * len(new)


@given(batches)
def test_a_history_is_its_rows_on_the_right(rows):
    assert_agrees(make(rows), rows)


@given(batches, st.data())
def test_any_sequence_of_select_and_append(rows, data):
    history = make(rows)
    for choice in data.draw(st.lists(st.sampled_from(["select", "append", "tensor"]), max_size=5)):
        if choice == "append":
            blocks = [data.draw(tokens) for _ in rows]
            history = history.append(blocks)
            rows = [(prompt, new + block) for (prompt, new), block in zip(rows, blocks, strict=True)]
        else:
            chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5))
            history = history.select(torch.tensor(chosen) if choice == "tensor" else chosen)
            rows = [rows[index] for index in chosen]
        assert_agrees(history, rows)


@given(batches, st.data())
def test_operations_leave_the_old_value_as_it_was(rows, data):
    history = make(rows)
    history.append([data.draw(tokens) for _ in rows])
    history.select([0, 0])
    assert_agrees(history, rows)


def test_no_rows_and_no_tokens():
    assert_agrees(History.of([]), [])
    assert_agrees(History.of([[], []]), [([], []), ([], [])])
    assert_agrees(make([([1], [2])]).select([]), [])


def test_prompts_and_continuations_come_in_pairs():
    with pytest.raises(ValueError, match="zip"):
        History.of([[1], [2]], [[3]])


def test_a_history_cannot_be_changed():
    with pytest.raises(AttributeError):
        History.of([[1]]).tokens = torch.zeros(1, 1)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.sampled_from([1, 2]))
def test_shift_right_moves_each_row_by_its_own_number(by, dim):
    x = torch.arange(len(by) * 25).view(len(by), 5, 5)
    shifted = shift_right(x, torch.tensor(by), dim)
    for row, distance in enumerate(by):
        kept = 5 - distance
        assert torch.equal(shifted[row].narrow(dim - 1, distance, kept), x[row].narrow(dim - 1, 0, kept))

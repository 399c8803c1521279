"""Prompt lookup: the first place of the longest match, found without looking through the row again."""

import gc
import weakref

import decodekit as dk
import pytest
from decodekit.testing import check_drafter
from decodekit_strategies.drafters.prompt_lookup import PromptLookup
from decodekit_strategies.drafters.suffix_automaton import SuffixAutomaton
from hypothesis import given
from hypothesis import strategies as st


class Rows:
    """As much of a batch as a drafter that asks no model looks at."""

    def __init__(self, *rows):
        self.rows = list(rows)


def scanned(tokens, largest, most):
    """The definition: scan the row for each size, the largest first."""
    for size in range(min(largest, len(tokens) - 1), 0, -1):
        for start in range(len(tokens) - size):
            if tokens[start : start + size] == tokens[-size:]:
                return tokens[start + size : start + size + most]
    return []


@given(
    prompt=st.lists(st.integers(0, 2), min_size=1, max_size=12),
    blocks=st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=6),
    largest=st.integers(1, 4),
    most=st.integers(0, 5),
)
def test_it_drafts_what_a_scan_of_the_row_finds(prompt, blocks, largest, most):
    row, drafter = dk.Row(prompt=0, prompt_tokens=prompt), PromptLookup(largest)
    for block in [[], *blocks]:
        row.tokens += block
        draft = drafter.draft(Rows(row), [most], None)
        assert draft.tokens == [scanned(row.since(0), largest, most)]
        assert not draft.q


def test_a_fork_remembers_its_own_tokens():
    row = dk.Row(prompt=0, prompt_tokens=[1, 2])
    drafter = PromptLookup(2)
    drafter.draft(Rows(row), [4], None)
    twin = row.fork()
    row.tokens += [3, 1, 2]
    twin.tokens += [4, 1, 2]
    assert drafter.draft(Rows(twin, row), [2, 2], None).tokens == [[4, 1], [3, 1]]


@pytest.mark.parametrize("drafter", [PromptLookup(2), SuffixAutomaton()])
def test_a_row_that_nobody_holds_is_freed_at_once(drafter):
    row = dk.Row(prompt=0, prompt_tokens=[1, 2])
    drafter.draft(Rows(row), [4], None)
    left = weakref.ref(row)
    gc.disable()
    try:
        del row
        assert left() is None
    finally:
        gc.enable()


def test_the_kit(profile):
    check_drafter(PromptLookup, profile=profile)

"""The suffix automaton: the longest match, at every length, as brute force finds it."""

import decodekit as dk
from decodekit.testing import check_drafter
from decodekit_strategies.drafters.suffix_automaton import SuffixAutomaton
from hypothesis import given
from hypothesis import strategies as st


class Rows:
    """As much of a batch as a drafter that asks no model looks at."""

    def __init__(self, *rows):
        self.rows = list(rows)


def longest_match(tokens, least):
    """The longest end of the row that also ended earlier, and what followed it first."""
    for size in range(len(tokens) - 1, least - 1, -1):
        for start in range(len(tokens) - size):
            if tokens[start : start + size] == tokens[len(tokens) - size :]:
                return tokens[start + size :]
    return []


@given(
    prompt=st.lists(st.integers(0, 2), min_size=1, max_size=20),
    blocks=st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=6),
    least=st.integers(1, 3),
)
def test_the_match_is_the_longest_and_the_first_of_these(prompt, blocks, least):
    row, drafter = dk.Row(prompt=0, prompt_tokens=prompt), SuffixAutomaton(least)
    for block in [[], *blocks]:
        row.tokens += block
        assert drafter.draft(Rows(row), [30], None).tokens == [longest_match(row.since(0), least)]


def test_a_fork_remembers_its_own_tokens():
    row = dk.Row(prompt=0, prompt_tokens=[1, 2])
    drafter = SuffixAutomaton(2)
    drafter.draft(Rows(row), [4], None)
    twin = row.fork()
    row.tokens += [3, 1, 2]
    twin.tokens += [4, 1, 2]
    assert drafter.draft(Rows(twin, row), [2, 2], None).tokens == [[4, 1], [3, 1]]


def test_it_grows_by_a_constant_number_of_states_a_token():
    row = dk.Row(prompt=0, prompt_tokens=[0, 1] * 300 + [2] * 300)
    SuffixAutomaton().draft(Rows(row), [1], None)
    _, automaton = row.memo["suffix_automaton"]
    assert len(automaton.follow) <= 2 * row.length


def test_the_kit(profile):
    check_drafter(SuffixAutomaton, profile=profile)

"""What is kept up with as tokens come says the same as a look at all of them."""

import time

import pytest
import torch
from decodekit import History
from decodekit.index import _TAIL
from decodekit.ledger import Ledger
from hypothesis import given
from hypothesis import strategies as st

TOKENS = st.lists(st.integers(0, 3), max_size=12)
STEPS = st.lists(st.tuples(st.sampled_from(["commit", "fork", "ask"]), TOKENS), max_size=8)


def facts(history):
    """Everything that an index knows, in a form without order and filling."""
    ids, counts = history.generated_counts()
    found = []
    for row in range(len(history)):
        named = {}
        for token, count in zip(ids[row].tolist(), counts[row].tolist(), strict=True):
            named[token] = named.get(token, 0) + (count if token >= 0 else 0)
        named.pop(-1, None)
        lists = [history.ids(), history.prompt_ids()]
        lists += [history.followers(n, prompt=prompt) for n in (1, 2, 3) for prompt in (False, True)]
        sets = [{*values[row].tolist()} - {-1} for values in lists]
        repeats = [history.repeats(row, least=least, most=most) for least, most in ((1, 1), (1, 5), (2, 40))]
        found.append((named, sets, repeats, history.recent(row, 3), history.recent(row, 0)))
    return found


def plain(history):
    return History(history.tokens, history.pads, history.prompt_lengths)


@given(st.lists(TOKENS.filter(bool), min_size=1, max_size=3), STEPS, st.data())
def test_an_index_says_what_the_tokens_say_whatever_was_committed_forked_and_drafted(prompts, steps, data):
    ledger = Ledger(prompts, 0, 10**6, torch.device("cpu"))
    for kind, tokens in steps:
        rows = len(ledger.history)
        if kind == "commit":
            ledger.append([tokens[row:] for row in range(rows)])
        elif kind == "fork":
            ledger.select(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=4)))
        else:
            drafted = ledger.history.append([tokens[: row + 2] for row in range(rows)])
            assert facts(drafted) == facts(plain(drafted))
    assert ledger.history.indexed
    assert facts(ledger.history) == facts(plain(ledger.history))
    one = ledger.history.select([0])
    assert facts(one) == facts(plain(one))


def test_a_fork_that_lives_on_for_long_is_indexed_anew():
    ledger = Ledger([[1, 2, 1]], 0, 10**6, torch.device("cpu"))
    facts(ledger.history)
    ledger.select([0, 0])
    for step in range(2 * _TAIL + 3):
        ledger.append([[step % 3], [step % 5]])
        if step % 16 == 0:
            assert facts(ledger.history) == facts(plain(ledger.history))
    assert facts(ledger.history) == facts(plain(ledger.history))


def test_an_old_history_still_tells_the_truth():
    ledger = Ledger([[1, 2, 1]], 0, 10**6, torch.device("cpu"))
    old = ledger.history
    before = facts(old)
    ledger.append([[2, 1]])
    assert ledger.history.tokens.tolist() == [[1, 2, 1, 2, 1]]
    assert not old.indexed
    assert facts(old) == before


@pytest.mark.parametrize("period", [1, 3, 10_000])
def test_a_question_costs_the_same_at_any_length(period):
    """Steps are counted, not timed: the states on the way of a look-up."""
    random = torch.Generator().manual_seed(0)
    pattern = torch.randint(0, 50, (period,), generator=random).tolist()
    text = (pattern * (16_384 // period + 1))[:16_384]
    ledger = Ledger([text], 0, 10**6, torch.device("cpu"))
    ledger.history.repeats(0, least=2, most=30)
    seconds = []
    for _ in range(20):
        ledger.append([[pattern[0]]])
        start = time.perf_counter()
        ledger.history.repeats(0, least=2, most=30)
        ledger.history.followers(3)
        seconds.append(time.perf_counter() - start)
    assert sorted(seconds)[2] < 0.002  # a walk over the text takes ten times as long

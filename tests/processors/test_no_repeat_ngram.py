import time

import pytest
import torch
from decodekit import History
from decodekit.testing import OracleRow, processor_checks
from decodekit.testing.generators import histories, logits
from decodekit_processors.no_repeat_ngram import NoRepeatNgram
from decodekit_processors.no_repeat_ngram_size import NoRepeatNgramSize
from hypothesis import given
from hypothesis import strategies as st


def oracle(row: OracleRow, ngram_size, window, exempt_ids, include_prompt):
    if ngram_size == 0:
        return row.logits
    first = max(len(row.tokens) - window, 0) if window else 0
    begun = row.tokens[first:][len(row.tokens) - first - ngram_size + 1 :] if ngram_size > 1 else []
    forbidden = set()
    for start in range(first, len(row.tokens) - ngram_size + 1):
        gram = row.tokens[start : start + ngram_size]
        ends_in_prompt = start + ngram_size <= row.prompt_length
        if gram[:-1] == begun and (include_prompt or not ends_in_prompt):
            forbidden.add(gram[-1])
    forbidden -= set(exempt_ids)
    return [-float("inf") if token in forbidden else x for token, x in enumerate(row.logits)]


CHECKS = dict(
    processor_checks(
        NoRepeatNgram,
        examples=[
            {"ngram_size": n, "window": window, "include_prompt": prompt}
            for n in (1, 2, 3)
            for window in (0, 2, 5)
            for prompt in (True, False)
        ],
        oracle=oracle,
    )
)


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(st.data(), st.integers(2, 5), st.integers(1, 4))
def test_without_a_window_it_is_that_of_transformers(data, vocab_size, n):
    x, history = data.draw(logits(vocab_size, 2)), data.draw(histories(vocab_size, 2))
    assert torch.equal(NoRepeatNgram(n)(x, history), NoRepeatNgramSize(n)(x, history))


def test_what_left_the_window_may_be_said_again_and_what_is_exempt_always():
    history, x = History.of([[1, 2, 3, 4, 1]]), torch.zeros(1, 6)
    assert NoRepeatNgram(2)(x, history).isinf().nonzero().tolist() == [[0, 2]]
    assert not NoRepeatNgram(2, window=4)(x, history).any()
    assert not NoRepeatNgram(2, exempt_ids=[2, 99])(x, history).any()


def test_a_window_costs_the_same_after_any_history():
    seconds = []
    for length in (256, 65_536):
        history, x = History.of([[5, 6, 7, 8] * (length // 4)]), torch.zeros(1, 64)
        laps = []
        for _ in range(20):
            start = time.perf_counter()
            NoRepeatNgram(3, window=64)(x, history)
            laps.append(time.perf_counter() - start)
        seconds.append(min(laps))
    assert seconds[1] < 10 * seconds[0]  # 256 times as many tokens

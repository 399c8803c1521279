import pytest
import torch
from decodekit.row import Row
from decodekit.stopping import StopRules
from hypothesis import given
from hypothesis import strategies as st
from transformers import StopStringCriteria


class Letters:
    """A tokenizer of one or two letters a token."""

    words = ("a", "b", "ab", "ba", "c", " ")

    def decode(self, ids, **_):
        return "".join(self.words[token] for token in ids)

    def get_vocab(self):
        return {word: place for place, word in enumerate(self.words)}


TOKENS = st.lists(st.integers(0, 5), max_size=6)


@given(TOKENS, TOKENS, TOKENS, st.sets(st.integers(0, 5)), st.integers(1, 8))
def test_a_block_is_cut_at_the_first_reason(prompt, tokens, block, eos, most):
    row = Row(prompt=0, prompt_tokens=prompt, tokens=tokens[: most - 1])
    kept, reason = StopRules(max_new_tokens=most, eos_token_ids=frozenset(eos)).cut(row, block)
    room = most - len(row.tokens)
    first_eos = next((place for place, token in enumerate(block) if token in eos), len(block))
    expected = block[: min(room, first_eos + 1)]
    assert kept == expected
    if first_eos < room and first_eos < len(block):
        assert reason == "eos"
    else:
        assert reason == ("length" if len(block) >= room else None)


@given(
    TOKENS,
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
    st.lists(st.sampled_from(["ab", "ba", "c", "aab", "b a"]), min_size=1, max_size=2),
)
def test_stop_strings_end_a_row_where_transformers_ends_it(prompt, block, texts):
    prompt = [*prompt, 5]
    row = Row(prompt=0, prompt_tokens=prompt)
    rules = StopRules(max_new_tokens=100, stop_strings=tuple(texts), tokenizer=Letters())
    kept, reason = rules.cut(row, block)
    whole = "".join(Letters.words[token] for token in prompt)
    expected = None
    for count, token in enumerate(block, start=1):
        before, whole = len(whole), whole + Letters.words[token]
        if any(whole.find(text, max(before - len(text) + 1, 0)) >= 0 for text in texts):
            expected = count
            break
    assert (len(kept), reason) == ((expected, "stop_string") if expected else (len(block), None))


def test_the_oracle_of_stop_strings_is_transformers(tiny_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    text = "one two three, two three"
    ids = tokenizer(text)["input_ids"]
    for stop in ("two", "wo thr", "e,", "zzz"):
        theirs = StopStringCriteria(tokenizer, [stop])
        ours = StopRules(max_new_tokens=100, stop_strings=(stop,), tokenizer=tokenizer)
        kept, _ = ours.cut(Row(prompt=0, prompt_tokens=ids[:2]), ids[2:])
        expected = next(
            (end for end in range(3, len(ids) + 1) if bool(theirs(torch.tensor([ids[:end]]), None)[0])),
            len(ids),
        )
        assert len(kept) + 2 == expected


def test_a_deadline_ends_every_row_with_its_next_token():
    assert StopRules(max_new_tokens=9, deadline=-1.0).cut(Row(prompt=0), [1, 2]) == ([1, 2], "time")


@pytest.mark.parametrize("answer", [True, torch.tensor(True), torch.tensor([True, False])])
def test_criteria_may_answer_for_all_rows_or_for_each(answer):
    rules = StopRules(max_new_tokens=9, criteria=(lambda input_ids, scores: answer,))
    rows = [Row(prompt=0, prompt_tokens=[1]), Row(prompt=1, slot=1, prompt_tokens=[2])]
    cuts = rules.cuts(rows, [[3], [4]])
    second = True if isinstance(answer, bool) or answer.dim() == 0 else bool(answer[1])
    assert cuts == ([[3], [4]], ["criterion", "criterion" if second else None])


def test_criteria_see_each_token_of_a_block_once():
    seen = []

    def spy(input_ids, scores):
        seen.append(input_ids.tolist())
        return False

    rules = StopRules(max_new_tokens=9, criteria=(spy,), prompt_width=2)
    rows = [Row(prompt=0, prompt_tokens=[1, 1]), Row(prompt=1, slot=1, prompt_tokens=[2])]
    rules.cuts(rows, [[3], [4, 5]], [Row(prompt=2, slot=2, prompt_tokens=[7], tokens=[8])])
    assert seen == [
        [[1, 1, 3], [0, 2, 4], [0, 7, 8]],
        [[1, 1, 3, 0], [0, 2, 4, 5], [0, 7, 8, 0]],
    ]


def test_a_row_that_is_ahead_does_not_end_the_others():
    rules = StopRules(max_new_tokens=9, criteria=(lambda input_ids, scores: input_ids.shape[1] >= 6,))
    behind = Row(prompt=0, prompt_tokens=[1, 1], tokens=[2])
    ahead = Row(prompt=1, slot=1, prompt_tokens=[1, 1], tokens=[2, 2, 2])
    left = Row(prompt=2, slot=2, prompt_tokens=[1, 1], tokens=[2, 2, 2, 2], finish_reason="criterion")
    assert rules.cuts([behind, ahead], [[3, 3], [4, 4]], [left]) == ([[3, 3], [4]], [None, "criterion"])

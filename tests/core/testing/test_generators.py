import attrs
import pytest
import torch
from decodekit import History, param, params_of
from decodekit.testing import generators
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LOGITS = generators.vocab_sizes().flatmap(lambda v: generators.logits(v, 2, dtypes=DTYPES))


@given(LOGITS)
def test_logits_are_finite_or_impossible_and_each_row_has_a_possible_token(x):
    assert x.shape[0] == 2
    assert 2 <= x.shape[1] <= 64
    assert (x.isfinite() | x.isneginf()).all()
    assert x.isfinite().any(dim=-1).all()


@pytest.mark.parametrize(
    "kind",
    [
        lambda x: x.abs().max() > 1e4,
        lambda x: x.masked_fill(x.isinf(), 0).abs().max() < 0.1,
        lambda x: (x[0] == x[0, 0]).all(),
        lambda x: len(x[0].unique()) < x.shape[1] and len(x[0].unique()) > 2,
        lambda x: x[0].isfinite().sum() == 1 and x.shape[1] > 3,
        lambda x: 1 < x[0].isfinite().sum() < x.shape[1],
        lambda x: (x == 65_504).any() and (x == -65_504).any(),
        lambda x: x.shape[1] == 2,
        lambda x: x.shape[1] > 40,
        *(lambda x, dtype=dtype: x.dtype == dtype for dtype in DTYPES),
    ],
    ids=[
        "large",
        "small",
        "equal",
        "ties",
        "one finite",
        "-inf",
        "±65504",
        "V = 2",
        "V > 40",
        *map(str, DTYPES),
    ],
)
def test_logits_of_every_kind_are_drawn(kind):
    assert kind(find(LOGITS, kind, settings=settings(max_examples=500, derandomize=True, database=None)))


@given(generators.vocab_sizes().flatmap(lambda v: generators.logits(v, 2, distinct=True)))
def test_distinct_logits_have_no_ties(x):
    for row in x:
        finite = row[row.isfinite()]
        assert len(finite.unique()) == len(finite)


@given(st.data(), st.integers(2, 9))
def test_histories_are_ragged_rows_of_known_tokens(data, vocab_size):
    history = data.draw(generators.histories(vocab_size, 3, beyond=2))
    assert len(history) == 3
    for index in range(3):
        row, prompt = history.row(index), int(history.prompt_lengths[index])
        assert prompt >= 1
        assert all(token < vocab_size + 2 for token in row[:prompt])
        assert all(token < vocab_size for token in row[prompt:])
    assert (history.tokens[~history.mask] < vocab_size).all()


@pytest.mark.parametrize(
    "kind",
    [
        lambda h: len(set(h.pads.tolist())) == 3,
        lambda h: h.pads.min() > 0,
        lambda h: h.tokens[~h.mask].any(),
        lambda h: h.tokens.max() >= 4,
        lambda h: (h.new_lengths == 0).any() and (h.new_lengths > 1).any(),
    ],
    ids=["ragged", "needless padding", "pad id in use", "beyond V", "unequal progress"],
)
def test_histories_of_every_kind_are_drawn(kind):
    history = generators.histories(4, 3, beyond=2)
    first = settings(max_examples=500, derandomize=True, database=None, phases=[Phase.generate])
    assert kind(find(history, kind, settings=first))


@given(generators.prompts(5, longest=3))
def test_prompts_are_ragged_batches(batch):
    assert 1 <= len(batch) <= 4
    assert all(1 <= len(prompt) <= 3 and max(prompt) < 5 for prompt in batch)


def test_padding_on_the_left_keeps_the_rows():
    history = History.of([[1, 2], [3]])
    padded = generators.pad_left(history, 2, 4)
    assert padded.tokens.tolist() == [[4, 4, 1, 2], [4, 4, 4, 3]]
    assert [padded.row(0), padded.row(1)] == [[1, 2], [3]]


@attrs.frozen
class Parameters:
    probability: float = param(range="(0, 1]", help="")
    factor: float = param(range="(0, inf)", help="")
    bias: float = param(range="(-inf, inf)", help="")
    count: int = param(range="[1, 3)", help="")
    many: int = param(range="[0, inf)", help="")
    word: str = param(choices=("a", "b"), help="")
    switch: bool = param(help="")
    free: float = param(7.0, help="")


@given(st.data())
@pytest.mark.parametrize("name", params_of(Parameters))
def test_parameter_values_are_allowed(name, data):
    info = params_of(Parameters)[name]
    value = data.draw(generators.parameter_values(info))
    assert info.check(value) == value


def test_a_required_parameter_without_a_range_has_no_values():
    info = attrs.evolve(params_of(Parameters)["free"], default=attrs.NOTHING)
    assert generators.parameter_values(info) is None


@pytest.mark.parametrize("vocab_size", [5, 256, 300, 70_000])
def test_the_last_token_of_a_long_prompt_is_chosen_like_the_first(vocab_size):
    def found(batch):
        return any(len(prompt) == 40 and prompt[-1] >= vocab_size * 3 // 4 for prompt in batch)

    batches = generators.prompts(vocab_size, longest=40)
    assert find(batches, found, settings=settings(max_examples=2_000, phases=[Phase.generate]))


@given(st.integers(1, 10**6), st.binary(min_size=3, max_size=3))
def test_a_choice_is_below_its_bound_and_no_choice_is_made_of_nothing(bound, data):
    assert 0 <= generators.Choices(data).below(bound) < bound
    assert generators.Choices(bytes(3)).below(bound) == 0
    with pytest.raises(IndexError):
        generators.Choices(b"").below(bound)

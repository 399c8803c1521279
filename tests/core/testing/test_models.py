"""The models of the kit are exact, run in transformers as well, and show the faults they were built for."""

import pytest
import torch
from decodekit.testing.models import CacheHashModel, MarkovModel, tiny_llama, tiny_mamba, tiny_mistral

MAKERS = {
    "markov": lambda: MarkovModel.random(9, order=2),
    "hash": lambda: CacheHashModel(16),
    "llama": tiny_llama,
    "mistral": tiny_mistral,
    "mamba": tiny_mamba,
}
EXACT = ["hash", "llama", "mistral"]


def logits(model, tokens, **inputs):
    with torch.no_grad():
        return model(input_ids=torch.tensor(tokens), **inputs).logits


@pytest.mark.parametrize("name", MAKERS)
def test_transformers_generates_the_same_with_and_without_a_cache(name):
    model, ids = MAKERS[name](), torch.tensor([[3, 4, 5], [7, 6, 3]])
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False}
    options |= {"eos_token_id": None, "pad_token_id": 0}
    cached = model.generate(ids, **options)
    assert cached.shape == (2, 11)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))


@pytest.mark.parametrize("name", MAKERS)
def test_making_and_running_a_model_leaves_the_random_state(name):
    before = torch.get_rng_state()
    logits(MAKERS[name](), [[3, 4]])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["markov", "llama", "mistral", "mamba"])
def test_a_seed_makes_the_same_model_again(name):
    make = {"markov": lambda seed: MarkovModel.random(9, seed=seed)}.get(name) or (
        lambda seed: {"llama": tiny_llama, "mistral": tiny_mistral, "mamba": tiny_mamba}[name](seed=seed)
    )
    assert torch.equal(logits(make(1), [[3, 4]]), logits(make(1), [[3, 4]]))
    assert not torch.equal(logits(make(1), [[3, 4]]), logits(make(2), [[3, 4]]))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_markov_logits_are_the_table_s(order):
    model = MarkovModel.random(4, order)
    tokens = [2, 1, 3, 3, 1]
    out = logits(model, [tokens])[0]
    assert out.dtype == torch.float64
    padded = [0] * (order - 1) + tokens
    for step in range(len(tokens)):
        assert torch.equal(out[step], model.table[tuple(padded[step : step + order])])


def test_a_masked_token_is_token_0_to_a_markov_model():
    model, mask = MarkovModel.random(4, 2), torch.tensor([[0, 1, 1]])
    assert torch.equal(
        logits(model, [[3, 1, 2]], attention_mask=mask)[0, 1:], logits(model, [[0, 1, 2]])[0, 1:]
    )


@pytest.mark.parametrize(
    "row",
    [[float("nan")] * 3, [0.0] * 3, [-torch.inf, 0.0, -torch.inf]],
    ids=["NaN", "all ties", "one possible"],
)
def test_degenerate_models_are_tables(row):
    table = torch.zeros(3, 3)
    table[1] = torch.tensor(row)
    out = logits(MarkovModel(table), [[1]])[0, 0]
    assert torch.equal(out.nan_to_num(7), torch.tensor(row, dtype=torch.float64).nan_to_num(7))


@pytest.mark.parametrize(
    ("tokens", "inputs"),
    [
        ([[5, 4, 3]], {}),
        ([[4, 3, 5]], {}),
        ([[3, 4, 5]], {"position_ids": torch.tensor([[1, 2, 3]])}),
        ([[3, 4, 5]], {"position_ids": torch.tensor([[0, 0, 2]])}),
        ([[3, 4, 5]], {"attention_mask": torch.tensor([[0, 1, 1]])}),
        ([[3, 4, 5]], {"attention_mask": torch.tensor([[1, 0, 1]])}),
    ],
    ids=["other order", "other prefix", "shifted", "repeated position", "first hidden", "second hidden"],
)
def test_hash_logits_show_every_visible_token_and_position(tokens, inputs):
    model = CacheHashModel(16)
    assert not torch.equal(logits(model, [[3, 4, 5]])[0, -1], logits(model, tokens, **inputs)[0, -1])


@pytest.mark.parametrize("name", EXACT)
def test_left_padding_with_mask_and_positions_changes_nothing(name):
    model, tokens = MAKERS[name](), [3, 4, 5, 6]
    mask, positions = torch.tensor([[0, 0, 1, 1, 1, 1]]), torch.tensor([[0, 0, 0, 1, 2, 3]])
    wanted = logits(model, [tokens])[0]
    padded = logits(model, [[7, 7, *tokens]], attention_mask=mask, position_ids=positions)[0, 2:]
    assert torch.allclose(padded, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("forgotten", ["attention_mask", "position_ids"])
def test_a_forgotten_mask_or_position_shows(name, forgotten):
    model, tokens = MAKERS[name](), [3, 4, 5, 6]
    given = {
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1]]),
        # what a cache that has lost count would say; a shift of all positions is nothing to rotary ones
        "position_ids": torch.tensor([[0, 0, 0, 1, 2, 3]]),
    }
    wrong = {"attention_mask": torch.ones(1, 6).long(), "position_ids": torch.tensor([[0, 0, 0, 1, 2, 2]])}
    wanted = logits(model, [tokens])[0, -1]
    got = logits(model, [[7, 7, *tokens]], **{**given, forgotten: wrong[forgotten]})[0, -1]
    assert (got - wanted).abs().max() > 1e-6


def test_mistral_sees_its_window_only():
    model = tiny_mistral(window=3)  # two layers look back two tokens each
    last = logits(model, [[3, 4, 5, 6, 7, 8]])[0, -1]
    assert torch.equal(logits(model, [[9, 4, 5, 6, 7, 8]])[0, -1], last)
    assert not torch.allclose(logits(model, [[3, 9, 5, 6, 7, 8]])[0, -1], last, rtol=0, atol=1e-9)


def test_dtypes_and_special_tokens_are_as_asked():
    model = tiny_llama(16, dtype=torch.bfloat16, eos_token_id=None)
    assert logits(model, [[3]]).dtype == torch.bfloat16
    assert (model.config.eos_token_id, model.config.bos_token_id, model.training) == (None, 1, False)
    assert logits(tiny_llama(16), [[3]]).dtype == torch.float64


def test_the_fields_of_a_tiny_llama_can_be_chosen():
    model = tiny_llama(num_hidden_layers=1, initializer_range=0.1, pad_token_id=2)
    assert len(model.model.layers) == 1
    assert (model.config.initializer_range, model.config.pad_token_id) == (0.1, 2)
    assert model.config.hidden_size == tiny_llama().config.hidden_size

import decodekit as dk
import pytest
import torch
from decodekit import sessions
from decodekit.growing import GrowingLayer, why_not_growing
from decodekit.history import shift_right
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache
from transformers.cache_utils import DynamicLayer

LLAMA = LlamaConfig(
    vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
)
WINDOWED = LlamaConfig(**{**LLAMA.to_dict(), "sliding_window": 4, "layer_types": ["sliding_attention"] * 2})

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.integers(1, 300)),
        st.tuples(st.just("crop"), st.integers(1, 4)),
        st.tuples(st.just("trim"), st.integers(1, 3)),
        st.tuples(st.just("shift"), st.lists(st.integers(0, 3), min_size=3, max_size=3)),
        st.tuples(st.just("rows"), st.lists(st.integers(0, 1), min_size=1, max_size=3)),
    ),
    min_size=1,
    max_size=8,
)


def apply(layer, step, value, generator):
    if step == "update":
        batch = 2 if not layer.is_initialized else len(layer.keys)
        states = torch.randn(2, batch, 3, value, 32, generator=generator)  # few numbers, or many
        layer.update(*states)
    elif not layer.is_initialized or layer.get_seq_length() <= 4:
        return
    elif step == "crop":
        layer.crop(-value)
    elif step == "trim":
        layer.keys, layer.values = layer.keys[:, :, value:], layer.values[:, :, value:]
    elif step == "shift":
        by = torch.tensor(value[: len(layer.keys)])
        if isinstance(layer, GrowingLayer):
            layer.shift(by)
        else:
            layer.keys, layer.values = shift_right(layer.keys, by, 2), shift_right(layer.values, by, 2)
    else:
        layer.reorder_cache(torch.tensor([row % len(layer.keys) for row in value]))


@given(STEPS)
def test_it_holds_what_transformers_layer_holds(steps):
    ours, theirs = GrowingLayer(), DynamicLayer()
    for number, (step, value) in enumerate(steps):
        for layer in (ours, theirs):
            apply(layer, step, value, torch.Generator().manual_seed(number))
        assert ours.get_seq_length() == theirs.get_seq_length()
        if theirs.is_initialized:
            assert torch.equal(ours.keys, theirs.keys)
            assert torch.equal(ours.values, theirs.values)


def test_steps_write_into_the_room_and_copy_nothing():
    layer = GrowingLayer()
    layer.update(torch.zeros(1, 64, 5, 128), torch.zeros(1, 64, 5, 128))
    layer.update(torch.ones(1, 64, 1, 128), torch.ones(1, 64, 1, 128))
    place = layer.keys.data_ptr()
    for _ in range(40):
        layer.update(torch.ones(1, 64, 1, 128), torch.ones(1, 64, 1, 128))
        layer.crop(-1)
        layer.update(torch.ones(1, 64, 1, 128), torch.ones(1, 64, 1, 128))
    assert layer.keys.data_ptr() == place


@pytest.mark.parametrize("size", [2, 8_192])
def test_what_was_written_is_not_the_callers(size):
    layer, keys = GrowingLayer(), torch.zeros(1, 1, 5, size)
    layer.update(keys, keys.clone())
    keys.fill_(1)
    assert not layer.keys.any()


def test_there_is_room_behind_a_prompt():
    layer = GrowingLayer()
    layer.update(torch.rand(1, 64, 9, 128), torch.rand(1, 64, 9, 128))
    place = layer.keys.data_ptr()
    layer.update(torch.rand(1, 64, 1, 128), torch.rand(1, 64, 1, 128))
    assert layer.keys.data_ptr() == place


def test_the_room_stays_when_rows_are_shifted():
    layer = GrowingLayer()
    for _ in range(2):
        layer.update(torch.rand(2, 64, 5, 64), torch.rand(2, 64, 5, 0))
    layer.shift(torch.tensor([0, 2]))
    place = layer.keys.data_ptr()
    layer.update(torch.rand(2, 64, 5, 64), torch.rand(2, 64, 5, 0))
    assert layer.keys.data_ptr() == place
    assert layer.values.shape == (2, 64, 15, 0)


def test_a_copy_that_goes_on_leaves_what_the_other_holds():
    import copy

    layer = GrowingLayer()
    layer.update(torch.zeros(1, 64, 5, 128), torch.zeros(1, 64, 5, 128))
    other = copy.copy(layer)
    other.update(torch.ones(1, 64, 3, 128), torch.ones(1, 64, 3, 128))
    assert layer.get_seq_length() == 5
    assert not layer.keys.any()
    assert other.get_seq_length() == 8


@pytest.mark.parametrize("make", [DynamicCache, lambda: DynamicCache(config=LLAMA)])
@pytest.mark.parametrize("turns", [(True, True), (True, False, True), (False, True)])
def test_a_conversation_goes_on_in_the_callers_cache(interpreted, make, turns):
    """It is filled in place, as by transformers, and also serves calls without a compiled step."""
    model = LlamaForCausalLM(LLAMA).eval()
    cache, plain = make(), DynamicCache(config=LLAMA)
    text = wanted = torch.tensor([[9, 4, 5, 4]])
    call = {"max_new_tokens": 5, "min_new_tokens": 5, "pad_token_id": 0}
    for compiled in turns:
        mask = torch.ones_like(text)
        text = dk.generate(model, text, attention_mask=mask, compile=compiled, past_key_values=cache, **call)
        wanted = model.generate(wanted, attention_mask=mask, past_key_values=plain, **call)
    assert text.tolist() == wanted.tolist()
    for ours, theirs in zip(cache.layers, plain.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.values, theirs.values, atol=1e-4, rtol=1e-4)


def test_a_cache_that_can_not_grow_has_a_reason():
    assert why_not_growing(DynamicCache(config=LLAMA)) is None
    assert why_not_growing(DynamicCache()) is None
    assert "DynamicSlidingWindowLayer, which forget" in why_not_growing(DynamicCache(config=WINDOWED))
    assert why_not_growing(StaticCache(LLAMA, 8)) == "is a StaticCache"
    offloaded = DynamicCache(config=LLAMA)
    offloaded.offloading = True
    assert why_not_growing(offloaded) == "is offloaded"


def test_a_call_that_is_refused_leaves_the_callers_cache_as_it_was(interpreted, monkeypatch):
    model = LlamaForCausalLM(LLAMA).eval()
    cache = DynamicCache(config=LLAMA)
    text = model.generate(torch.tensor([[9, 4, 5]]), past_key_values=cache, max_new_tokens=4)

    def refuse(*args):
        message = "something is missing"
        raise dk.CapabilityError(message)

    with monkeypatch.context() as patch:
        patch.setattr(sessions, "check_needs", refuse)
        with pytest.raises(dk.CapabilityError):
            dk.generate(model, text, past_key_values=cache, max_new_tokens=2, compile=True)
    assert {type(layer) for layer in cache.layers} == {DynamicLayer}
    dk.generate(model, text, past_key_values=cache, max_new_tokens=2, compile=True)
    assert {type(layer) for layer in cache.layers} == {GrowingLayer}

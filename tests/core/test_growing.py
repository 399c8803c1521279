import torch
from decodekit.growing import GrowingLayer
from decodekit.history import shift_right
from hypothesis import given
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer

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
        states = torch.randn(2, batch, 3, value, 4, generator=generator)
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
    layer.update(torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, 5, 2))
    layer.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    place = layer.keys.data_ptr()
    for _ in range(40):
        layer.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
        layer.crop(-1)
        layer.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    assert layer.keys.data_ptr() == place


def test_the_room_stays_when_rows_are_shifted():
    layer = GrowingLayer()
    for _ in range(2):  # the first layer of a prompt has no room
        layer.update(torch.rand(2, 1, 5, 3), torch.rand(2, 1, 5, 0))
    layer.shift(torch.tensor([0, 2]))
    place = layer.keys.data_ptr()
    layer.update(torch.rand(2, 1, 5, 3), torch.rand(2, 1, 5, 0))
    assert layer.keys.data_ptr() == place
    assert layer.values.shape == (2, 1, 15, 0)


def test_a_copy_that_goes_on_leaves_what_the_other_holds():
    import copy

    layer = GrowingLayer()
    layer.update(torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, 5, 2))
    other = copy.copy(layer)
    other.update(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2))
    assert layer.get_seq_length() == 5
    assert not layer.keys.any()
    assert other.get_seq_length() == 8

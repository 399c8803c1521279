import pytest
import torch
from decodekit import mersenne
from decodekit.mersenne import Words, exponentials, knows_torch
from decodekit.randomness import GlobalNoise, Purpose
from hypothesis import given
from hypothesis import strategies as st


class Stream:
    seed, lane = 0, 0

    def __init__(self, slot):
        self.slot = slot


@given(st.integers(0, 2**63 - 1), st.integers(0, 700), st.integers(1, 2_000))
def test_values_and_state_are_torchs_to_the_bit(seed, before, count):
    mine, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
    for generator in (mine, theirs):
        torch.randint(9, (before,), generator=generator)  # so that it stands anywhere in its block
    wanted = torch.empty(count).exponential_(generator=theirs)
    places = torch.arange(count).flip(0)[:40].view(1, -1)
    found = Words(count, mine).exponential(places)
    assert found.shape == places.shape
    assert torch.equal(found, wanted[places])
    assert torch.equal(mine.get_state(), theirs.get_state())


@given(st.integers(0, 2**63 - 1), st.integers(1, 5_000))
def test_all_values_are_torchs_to_the_bit(seed, count):
    torch.manual_seed(seed)
    wanted, state = torch.empty(count).exponential_(), torch.get_rng_state()
    torch.manual_seed(seed)
    assert torch.equal(exponentials(count), wanted)
    assert torch.equal(torch.get_rng_state(), state)


def field(slots=3):
    return GlobalNoise(slots).field([Stream(2), Stream(0)], [5, 6], 500, Purpose.TOKEN)


@pytest.mark.parametrize("known", [True, False])
def test_single_values_of_the_global_noise_are_those_of_all_and_are_drawn_once(monkeypatch, known):
    torch.manual_seed(7)
    whole = field().dense()
    state = torch.get_rng_state()
    monkeypatch.setattr("decodekit.randomness.knows_torch", lambda: known)
    torch.manual_seed(7)
    lazy = field()
    ids = torch.tensor([[4, 499, 500]])
    first, second = lazy.at([0], ids), lazy.at([1], ids)
    assert torch.equal(torch.cat([first, second])[:, :2], whole[:, [4, 499]])
    assert torch.equal(torch.get_rng_state(), state)


def test_another_torch_is_found_out(monkeypatch):
    assert knows_torch()
    monkeypatch.setattr(mersenne.Words, "exponential", lambda self, places: places + 0.5)
    assert not knows_torch.__wrapped__()

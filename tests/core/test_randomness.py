import math

import attrs
import numpy as np
import pytest
import torch
from decodekit import ParameterError, Purpose
from decodekit.randomness import GlobalNoise, SeededNoise, _to_uniform, prompt_seeds, race
from hypothesis import given
from hypothesis import strategies as st


@attrs.frozen
class Stream:
    seed: int
    lane: int = 0
    slot: int = 0


SEEDS = st.integers(-(2**63), 2**64 - 1)
STREAMS = st.builds(Stream, SEEDS, st.integers(0, 1000), st.integers(0, 5))
POSITIONS = st.integers(0, 2**40)


@given(st.lists(st.tuples(STREAMS, POSITIONS), min_size=1, max_size=4), st.integers(2, 40), st.data())
def test_a_seeded_draw_does_not_depend_on_the_batch(named, vocab_size, data):
    noise = SeededNoise()
    purpose = data.draw(st.sampled_from(Purpose))

    def of(items):
        rows, positions = zip(*items, strict=True)
        return noise.exponential(rows, positions, vocab_size, purpose)

    together = of(named)
    for place, item in enumerate(named):
        assert torch.equal(together[place], of([item])[0])
    assert (together > 0).all()
    assert together.isfinite().all()
    # a larger vocabulary only adds tokens
    rows, positions = zip(*named, strict=True)
    wider = noise.exponential(rows, positions, vocab_size + 5, purpose)
    assert torch.equal(wider[:, :vocab_size], together)


@given(STREAMS, POSITIONS, st.data())
def test_another_seed_lane_position_or_purpose_is_another_draw(stream, position, data):
    change = data.draw(st.sampled_from(["seed", "lane", "position", "purpose"]))
    other, other_position, purpose = stream, position, Purpose.TOKEN
    if change == "seed":
        other = attrs.evolve(stream, seed=stream.seed ^ 1)
    elif change == "lane":
        other = attrs.evolve(stream, lane=stream.lane + 1)
    elif change == "position":
        other_position += 1
    else:
        purpose = Purpose.ACCEPT
    noise = SeededNoise()
    first = noise.uniform([stream], [position], Purpose.TOKEN)
    assert first != noise.uniform([other], [other_position], purpose)
    assert 0 < first < 1


def test_the_slot_is_no_part_of_a_seeded_stream():
    one, two = (SeededNoise().uniform([Stream(3, 1, slot)], [7], Purpose.TOKEN) for slot in (0, 9))
    assert torch.equal(one, two)


def test_seeded_noise_is_exponential_and_streams_are_uncorrelated():
    rows = [Stream(seed, lane) for seed in range(20) for lane in range(10)]
    count = 2000
    noise = SeededNoise().exponential(rows, [11] * len(rows), count, Purpose.TOKEN)
    size = noise.numel()
    # five standard errors of the mean (sd 1) and of the second moment (sd sqrt(20))
    assert abs(noise.mean() - 1) < 5 / math.sqrt(size)
    assert abs((noise**2).mean() - 2) < 5 * math.sqrt(20 / size)
    # Kolmogorov-Smirnov against 1 - exp(-x); 1.95 / sqrt(n) is its 0.1% point
    ordered = noise.flatten().sort().values
    empirical = torch.arange(1, size + 1) / size
    assert (empirical - (1 - torch.exp(-ordered))).abs().max() < 1.95 / math.sqrt(size)
    centred = noise - noise.mean(dim=1, keepdim=True)
    correlation = (centred @ centred.T) / count
    correlation.fill_diagonal_(0)
    assert correlation.abs().max() < 6 / math.sqrt(count)


def chi_square(tokens, probabilities):
    counts = torch.bincount(tokens, minlength=len(probabilities)).double()
    expected = probabilities * len(tokens)
    return float(((counts - expected) ** 2 / expected).sum())


def test_the_race_draws_from_the_distribution_and_the_check_can_fail():
    rows = [Stream(seed) for seed in range(40_000)]
    probabilities = torch.tensor([0.5, 0.25, 0.15, 0.08, 0.02], dtype=torch.float64)
    noise = SeededNoise().exponential(rows, [0] * len(rows), 5, Purpose.TOKEN)
    scores = probabilities.log().expand(len(rows), -1)
    bound = 45.0  # chi-square of 4 degrees of freedom exceeds it with probability 4e-9
    assert chi_square(race(scores, noise), probabilities) < bound
    wrong = (scores.exp() / torch.exp(-noise)).argmax(-1)  # uniform noise instead of exponential
    assert chi_square(wrong, probabilities) > bound


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(2, 300))
def test_without_a_seed_the_draw_is_torch_multinomial(seed, batch, vocab_size):
    scores = torch.randn(batch, vocab_size, generator=torch.Generator().manual_seed(seed))
    scores[:, ::3] = -math.inf
    scores[:, 1] = 0.0
    rows = [Stream(0, slot=slot) for slot in range(batch)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        expected = torch.multinomial(scores.softmax(-1), 1)[:, 0]
        state = torch.random.get_rng_state()
        torch.manual_seed(seed)
        noise = GlobalNoise(batch).exponential(rows, [0] * batch, vocab_size, Purpose.TOKEN)
        assert torch.equal(race(scores, noise), expected)
        assert torch.equal(torch.random.get_rng_state(), state)


def test_rows_that_have_left_still_consume_the_global_generator():
    positions = [0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = torch.empty(3, 4).exponential_(1)
        torch.manual_seed(0)
        assert torch.equal(
            GlobalNoise(3).exponential([Stream(0, slot=2)], positions, 4, Purpose.TOKEN)[0], whole[2]
        )
        torch.manual_seed(0)
        uniform = GlobalNoise(3).uniform([Stream(0, slot=1)], positions, Purpose.ACCEPT)
    assert uniform.shape == (1,)
    assert 0 < uniform < 1


@given(
    st.lists(st.floats(-50, 50) | st.just(-math.inf), min_size=2, max_size=8).filter(
        lambda x: max(x) > -math.inf
    )
)
def test_a_token_of_probability_zero_never_wins(scores):
    noise = torch.full((1, len(scores)), 1e30, dtype=torch.float64)  # the ratios underflow towards 0
    assert scores[int(race(torch.tensor([scores]), noise))] > -math.inf


@pytest.mark.parametrize("seed", [[1], [1, 2, 3], "12", 1.5, True, [1.0, 2.0], [True, False]])
def test_seeds_that_do_not_fit_are_named(seed):
    with pytest.raises(ParameterError, match="seed"):
        prompt_seeds(seed, 2)


def test_seeds_for_all_or_one_a_prompt():
    assert prompt_seeds(7, 3) == [7, 7, 7]
    assert prompt_seeds([7, 8], 2) == [7, 8]
    assert prompt_seeds(torch.tensor([7, 8]), 2) == [7, 8]


@pytest.mark.parametrize("kind", [np.int64, np.array, torch.tensor])
def test_seeds_may_come_from_numpy_and_torch(kind):
    assert prompt_seeds(kind(7), 2) == [7, 7]
    assert prompt_seeds([kind(7), 8], 2) == [7, 8]


def test_no_uniform_number_is_0_or_1():
    uniform = _to_uniform(torch.tensor([0, -1]))
    assert 0 < uniform[0] < 2.0**-52
    assert 1 - 2.0**-52 < uniform[1] < 1

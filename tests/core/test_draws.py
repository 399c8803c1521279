"""Draws are made with the noise of their own position; those of drafts also with that of their step."""

import torch
from decodekit import Purpose, Row
from decodekit.draws import draw, positions
from decodekit.randomness import SeededNoise
from decodekit.scores import Scores

FLAT = Scores.of(torch.zeros(1, 50_000))


def drawn(length, offset, purpose, greedy=False):
    row = Row(prompt=0, seed=3, prompt_tokens=[0] * length, greedy=greedy)
    return int(draw(SeededNoise(), [row], FLAT, offset, purpose))


def test_a_drafted_position_draws_what_plain_decoding_draws_there():
    assert drawn(5, 2, Purpose.TOKEN) == drawn(7, 0, Purpose.TOKEN)
    assert drawn(5, 2, Purpose.TOKEN) != drawn(5, 1, Purpose.TOKEN)


def test_the_draft_of_another_step_has_other_noise_at_the_same_position():
    assert drawn(5, 2, Purpose.DRAFT) == drawn(5, 2, Purpose.DRAFT)
    assert drawn(5, 2, Purpose.DRAFT) != drawn(7, 0, Purpose.DRAFT)


def test_a_row_at_temperature_zero_takes_the_lowest_of_the_largest():
    assert drawn(5, 0, Purpose.TOKEN, greedy=True) == 0


def test_rows_may_stand_at_different_offsets():
    rows = [Row(prompt=0, prompt_tokens=[1] * 4), Row(prompt=1, prompt_tokens=[1], tokens=[2, 3])]
    assert positions(rows, [0, 2]) == [4, 5]
    assert positions(rows, 1) == [5, 4]

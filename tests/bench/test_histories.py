import pytest

from tests.bench import histories
from tests.bench.rows import Seconds


@pytest.mark.usefixtures("tiny")
def test_both_sides_go_on_behind_a_history():
    row = histories._row("float32", 32, False)
    assert isinstance(row.theirs(), Seconds)
    assert isinstance(row.ours(), Seconds)


def test_a_history_has_its_length(tiny):
    cache = histories._cache(tiny[0], 32)
    assert cache.get_seq_length() == 32


def test_there_is_a_row_for_every_length_eager_and_compiled():
    names = [*histories.history_rows()]
    assert len(names) == 2 * len(histories.LENGTHS)
    assert (histories.LENGTHS[0], histories.LENGTHS[-1]) == (256, 16_384)

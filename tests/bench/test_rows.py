import itertools

import attrs
import pytest

from tests.bench.rows import Result, Row, Seconds, measure


def recorded(**more):
    """A row that writes down its runs, and where."""
    order = []
    return Row("base", lambda: order.append("b"), lambda: order.append("o"), **more), order


def test_runs_alternate_after_one_of_each_that_is_not_counted():
    row, order = recorded()
    assert [len(kept) for kept in measure(row, 4, 60)] == [4, 4]
    assert "".join(order) == "bo" * 5


def test_a_row_can_spare_the_first_run_and_have_fewer_runs():
    row, order = recorded(warm=False, runs=2)
    assert [len(kept) for kept in measure(row, 5, 60)] == [2, 2]
    assert "".join(order) == "bo" * 2


def test_a_row_has_one_run_of_each_where_its_part_of_the_time_is_over():
    row, order = recorded()
    assert [len(kept) for kept in measure(row, 50, 60, share=0)] == [1, 1]
    assert [len(kept) for kept in measure(row, 3, 0, share=60)] == [3, 3]
    assert "".join(order) == "bo" * 6


def test_a_function_of_its_own_makes_a_row_ready():
    row, order = recorded()
    measure(attrs.evolve(row, warm=lambda: order.append("w")), 2, 60)
    assert "".join(order) == "wbobo"


def test_a_row_of_short_runs_has_more_of_them():
    row, order = recorded(times=3)
    assert [len(kept) for kept in measure(row, 2, 60)] == [6, 6]
    assert "".join(order) == "bo" * 7


def test_when_the_seconds_are_over_a_row_has_three_runs_of_each():
    row, _ = recorded()
    assert [len(kept) for kept in measure(row, 50, 0)] == [3, 3]


def test_seconds_that_a_run_measured_itself_count():
    theirs, ours = itertools.count(10), itertools.count(1)
    row = Row("base", lambda: Seconds(next(theirs)), lambda: Seconds(next(ours)))
    assert measure(row, 2, 60) == ([11, 12], [2, 3])


def of(base, ours, **about):
    return Result.of("name", Row("base", print, print, **about), (base, ours))


def test_the_ratio_is_that_of_the_medians_and_the_spread_that_of_pairs():
    found = of([4.0, 6.0, 9.0], [2.0, 3.0, 1.0])
    assert (found.base_seconds, found.seconds, found.ratio, found.spread) == (6, 2, 3, (2, 9))
    assert (found.runs, found.tokens_per_second, found.gigabytes_per_second) == (3, None, None)


def test_tokens_and_bytes_are_told_a_second():
    found = of([4.0], [2.0], tokens=64, reads=lambda: 1e9)
    assert (found.base_tokens_per_second, found.tokens_per_second, found.gigabytes_per_second) == (16, 32, 32)


@pytest.mark.parametrize(
    ("ours", "about", "verdict"),
    [
        (4.0, {}, "loss"),
        (4.0, {"target": 0.1}, "loss"),
        (1.0, {}, ""),
        (1.0, {"target": 2}, "target met"),
        (1.0, {"target": 2.5}, "below target"),
        (-1.0, {"target": 2.5}, "too noisy"),
        (1.0, {"limit": 1}, "target met"),
        (1.0, {"limit": 0.5}, "below target"),
    ],
)
def test_what_is_said_of_a_row_whose_base_takes_two_seconds(ours, about, verdict):
    assert of([2.0], [ours], **about).verdict == verdict


def test_a_base_without_measurable_time_has_no_ratio_and_no_verdict():
    found = of([-1.0], [2.0], target=3)
    assert (found.ratio, found.verdict) == (None, "too noisy")


def test_a_limit_in_seconds_is_drawn_as_a_ratio():
    assert of([20.0], [4.0], limit=10).target == 2

import re

import attrs
import pytest
from decodekit import ParameterError
from decodekit.testing import ConformanceError, Outcome, search
from decodekit.testing.check import (
    PROFILES,
    BrokenPromiseError,
    assertions,
    check,
    examples_of,
    run_check,
    run_checks,
)
from hypothesis import strategies as st


@attrs.frozen
class Limit:
    """A subject that promises that no number is above its limit."""

    limit: int
    laws: frozenset[str] = frozenset()
    name: str = "limit"

    def declares(self, law):
        return law in self.laws


@check("X1")
def small_numbers(subject, draw):
    """Numbers stay below the limit."""
    number = draw(st.integers(0, 1000))
    if number > subject.limit:
        raise BrokenPromiseError(f"got {number}")


@check("X2", law="even", skip=lambda subject: "limit is 0" if subject.limit == 0 else None, most_examples=5)
def even_numbers(subject, draw):
    """Numbers are even."""
    TRIED.append(draw(st.integers(0, 9)))


TRIED = []


def test_the_smallest_counter_example_is_found():
    result = run_check(small_numbers, Limit(500), 100)
    assert result.outcome is Outcome.FAILED
    assert (result.id, result.title) == ("X1", "small numbers")
    assert result.detail == "broken: Numbers stay below the limit.\ngot 501"


def test_a_search_that_is_stopped_gives_the_smallest_that_it_has_found(monkeypatch):
    @check("X3")
    def small_sums(subject, draw):
        """Sums stay below the limit."""
        numbers = draw(st.lists(st.integers(0, 9), min_size=draw(st.integers(0, 20))))
        more = draw(st.integers(0, 9))
        if sum(numbers) > subject.limit and more:
            raise BrokenPromiseError(f"got {sum(numbers)}")

    monkeypatch.setattr(search, "_SECONDS", 0.0)
    found = small_sums.search(Limit(20), 200)
    assert re.fullmatch(r"broken: Sums stay below the limit\.\ngot \d+", found.text)
    assert "test_x3_small_sums" in found.test


def test_no_counter_example_is_a_pass():
    assert run_check(small_numbers, Limit(1000), 100).outcome is Outcome.PASSED


def test_a_failure_does_not_hide_the_other_checks():
    with pytest.raises(ConformanceError, match="limit does not conform") as caught:
        run_checks((small_numbers, even_numbers), Limit(3, frozenset({"even"})), "fast")
    assert [item.outcome for item in caught.value.report.results] == [Outcome.FAILED, Outcome.PASSED]


def test_a_check_tries_no_more_than_its_own_number_of_inputs():
    TRIED.clear()
    run_check(even_numbers, Limit(1, frozenset({"even"})), 100)
    assert 1 < len(TRIED) <= 5


def test_a_check_that_does_not_apply_is_skipped_with_its_reason():
    result = run_check(even_numbers, Limit(0), 10)
    assert (result.outcome, result.detail) == (Outcome.SKIPPED, "even is not declared")
    assert assertions((even_numbers,), Limit(0)) == []


def test_an_undeclared_law_without_counter_example_is_a_hint():
    assert run_check(even_numbers, Limit(1), 10).outcome is Outcome.HINT


def test_an_error_of_the_check_itself_is_not_taken_for_a_finding():
    @check("X3")
    def broken_check(subject, draw):
        """Never."""
        raise KeyError("a bug of the kit")

    with pytest.raises(KeyError):
        run_check(broken_check, Limit(1), 10)


def test_the_environment_picks_the_profile(monkeypatch):
    monkeypatch.setenv("DECODEKIT_TEST_PROFILE", "thorough")
    assert examples_of(None) == PROFILES["thorough"]
    assert examples_of("fast") == PROFILES["fast"]
    monkeypatch.delenv("DECODEKIT_TEST_PROFILE")
    assert examples_of(None) == PROFILES["default"]


def test_an_unknown_profile_is_refused_with_the_nearest_name():
    with pytest.raises(
        ParameterError, match=r"profile='thoroughly' must be one of .*Did you mean 'thorough'"
    ):
        examples_of("thoroughly")

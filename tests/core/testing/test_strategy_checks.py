import re

import attrs
import pytest
from decodekit import ParameterError, Strategy, StrategyLaws, param
from decodekit.testing import ConformanceError, Outcome, check_strategy, strategy_checks
from decodekit.testing.strategy_checks import STRATEGY_CHECKS

S1, S2 = "S1 greedy limit", "S2 support"


@attrs.frozen
class Rank(Strategy):
    """Commit the token of a rank."""

    NAME = "rank"
    LAWS = StrategyLaws(greedy_limit=True)
    rank: int = param(0, help="")

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(p.scores.sort(descending=True, stable=True).indices[:, self.rank], p)


def test_a_right_strategy_that_speculates_passes_all(speculate):
    report = check_strategy(speculate, profile="fast")
    assert report.name == "strategy planted"
    skipped = report.of(Outcome.SKIPPED)
    assert {item.id for item in skipped} == {"S23", "S24", "S25", "S28", "S30", "S31", "S34", "S39"}
    assert len(report.of(Outcome.PASSED)) == len(STRATEGY_CHECKS) - len(skipped)


def test_what_does_not_apply_is_skipped_with_its_reason():
    report = check_strategy(Rank, profile="fast")
    skipped = {item.id: item.detail for item in report.of(Outcome.SKIPPED)}
    assert skipped["S8"] == "it does not sample (SAMPLES)"
    assert skipped["S4"] == "lossless is not declared"
    assert [item.title for item in report.of(Outcome.HINT)] == ["draws nothing"]


def test_checks_are_in_the_order_of_their_numbers():
    names = [name for name, _ in strategy_checks(Rank)]
    assert names[:3] == ["S1 greedy limit", "S2 support", "S3 reported log probabilities"]
    assert names[-1] == "S38 observers"
    assert len({f"{item.id} {item.title}" for item in STRATEGY_CHECKS}) == len(STRATEGY_CHECKS)


def test_the_error_shows_a_small_call():
    with pytest.raises(ConformanceError) as caught:
        dict(strategy_checks(Rank(1)))[S1]()
    text = str(caught.value)
    assert text.startswith("strategy rank does not conform.\nS1 greedy limit: broken: At temperature 0")
    assert re.search(r"\nstrategy +Rank\(rank=1\)\n", text)
    assert re.search(r"\nprompts +\[\[\d(, \d)?\]\]\n", text)
    assert re.search(r"\nmax_new_tokens +[12]\n", text)


def test_an_instance_is_checked_with_its_own_parameters():
    dict(strategy_checks(Rank(0)))[S1]()
    with pytest.raises(ConformanceError, match=r"Rank\(rank=1\)"):
        dict(strategy_checks(Rank(1)))[S1]()


def test_examples_stand_in_for_ranges():
    dict(strategy_checks(Rank, examples=[{"rank": 0}]))[S1]()
    with pytest.raises(ConformanceError, match=r"Rank\(rank=1\)"):
        dict(strategy_checks(Rank, examples=[{"rank": 0}, {"rank": 1}]))[S1]()


def test_a_parameter_without_a_range_needs_examples():
    @attrs.frozen
    class Free(Strategy):
        NAME = "free"
        word: str = param(help="")
        step = Rank.step

    with pytest.raises(ParameterError, match=r"needs values of word.*examples=\[\{'word': \.\.\.\}\]"):
        dict(strategy_checks(Free))[S2]()

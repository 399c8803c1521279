"""A counter-example in a report is a test that fails for the same reason."""

import sys
import types
from typing import Any

import attrs
import pytest
from decodekit import (
    Draft,
    Drafter,
    Laws,
    ParameterError,
    Processor,
    Strategy,
    StrategyLaws,
    UnknownNameError,
    param,
)
from decodekit.testing import ConformanceError, plugin_checks, replay, strategy_case_of
from decodekit.testing.models import MarkovModel
from decodekit.testing.strategy_toys import Bytes
from decodekit.testing.violation import BrokenPromiseError


@attrs.frozen
class Negate(Processor):
    """Wrong in many ways."""

    NAME = "negate"
    LAWS = Laws(keeps_argmax=True)
    size: int = param(2, range="[1, inf)", help="")
    free: float = param(0.0, help="")

    def __call__(self, logits, history):
        logits[:, 0] += 1
        return -logits / logits.max() * len(logits) + history.tokens[:, :1] - self.size


@attrs.frozen
class Last(Strategy):
    """Commit the last token of the vocabulary, or the second."""

    NAME = "last"
    LAWS = StrategyLaws(greedy_limit=True)
    place: int = param(1, range="[1, 2]", help="")

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(p.argmax() * 0 + p.scores.shape[-1] - self.place, p)


@attrs.frozen
class Backwards(Strategy):
    """Commit the least probable token, with something that can't be written down."""

    NAME = "backwards"
    LAWS = StrategyLaws(greedy_limit=True)
    helper: Any = param(None, help="")
    rank: int = param(0, range="[0, 1]", help="")

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(p.scores.sort().indices[:, self.rank], p)


@attrs.frozen
class TooLong(Drafter):
    """Draft one token more than was asked for."""

    NAME = "too_long"
    token: int = param(0, range="[0, 1]", help="")
    helper: Any = param(None, help="")

    def draft(self, batch, lengths, pick):
        return Draft([[self.token] * (most + 1) for most in lengths])


class Thing:
    """No value, and no literal."""


HELPER, TARGET, TOKENIZER = Thing(), MarkovModel.random(5, seed=1), Bytes()


def two_more(row, **parameters):
    return [x + 2 for x in row.logits]


def failure(plugin, key, **options):
    with pytest.raises(ConformanceError) as caught:
        dict(plugin_checks(plugin, profile="fast", **options))[key]()
    (result,) = caught.value.report.of_failures()
    return result


def run_pasted(source, monkeypatch):
    """Run what was printed, with the classes of this file where it imports them."""
    monkeypatch.setitem(sys.modules, __name__, types.SimpleNamespace(**globals()))
    scope = {}
    exec(source, scope)
    (test,) = (value for name, value in scope.items() if name.startswith("test_"))
    test()


KEYS = ["P2 purity", "P4 row independence", "P8 no resurrection", "P14 argmax preservation"]
KEYS += ["P18 extreme parameters", "P25 padding invariance", "P30 parameter validation"]


@pytest.mark.parametrize("key", KEYS)
def test_the_printed_test_of_a_processor_fails_as_the_check_did(key, monkeypatch):
    result = failure(Negate, key)
    with pytest.raises(BrokenPromiseError) as again:
        run_pasted(result.test, monkeypatch)
    assert str(again.value) in result.detail


@pytest.mark.parametrize("key", ["S1 greedy limit", "S2 support"])
def test_the_printed_test_of_a_strategy_fails_as_the_check_did(key, monkeypatch):
    result = failure(Last, key)
    with pytest.raises(BrokenPromiseError) as again:
        run_pasted(result.test, monkeypatch)
    assert str(again.value) in result.detail


WRAPPED = {
    "a strategy": (Backwards(rank=1), "S1 greedy limit", {}),
    "a strategy that holds an object": (Backwards(HELPER), "S1 greedy limit", {}),
    "a class of drafters": (TooLong, "D1 contract", {}),
    "a drafter": (TooLong(1), "D1 contract", {}),
    "a drafter that holds an object, for a target": (
        TooLong(1, HELPER),
        "D1 contract",
        {"target": TARGET, "tokenizer": TOKENIZER},
    ),
    "a processor": (Negate(3), "P8 no resurrection", {}),
    "a processor with an oracle": (Negate(3), "P21 oracle equality", {"oracle": two_more}),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_the_printed_test_of_an_instance_fails_as_the_check_did(name, monkeypatch):
    plugin, key, options = WRAPPED[name]
    result = failure(plugin, key, **options)
    with pytest.raises(BrokenPromiseError) as again:
        run_pasted(result.test, monkeypatch)
    assert str(again.value).partition("\n")[0] in result.detail


def test_what_nobody_can_name_is_left_to_fill_in():
    test = failure(Backwards(Thing()), "S1 greedy limit").test
    assert "\n\ngiven_1 = ...  # put here the Thing that was given\n" in test
    assert "    plugin = Backwards(helper=given_1)\n" in test


def test_a_mended_plugin_passes_the_printed_test(monkeypatch):
    result = failure(Negate, "P8 no resurrection")

    @attrs.frozen
    class Mended(Negate):
        def __call__(self, logits, history):
            return logits

    me = types.ModuleType(__name__)
    me.Negate = Mended
    monkeypatch.setitem(sys.modules, __name__, me)
    scope = {}
    exec(result.test, scope)
    scope["test_p8_no_resurrection"]()


def test_a_failure_says_the_law_why_it_matters_and_what_to_do():
    text = failure(Negate, "P14 argmax preservation").explanation()
    assert "Declared: keeps_argmax in LAWS" in text
    assert "Why it matters: Greedy decoding skips" in text
    assert "What to do: keeps_argmax: keep it, or take it out of LAWS." in text
    assert "def test_p14_argmax_preservation():" in text


def test_a_local_class_is_left_to_the_reader():
    @attrs.frozen
    class Local(Negate):
        pass

    assert "# Local: the class under test" in failure(Local, "P2 purity").test


def test_a_check_that_is_not_there_is_named():
    with pytest.raises(UnknownNameError, match=r"there is no check 'P8 no resurection'. Did you mean 'P8 no"):
        replay("P8 no resurection", Negate, [])


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(ParameterError, match=r"is not 'KIND, N tokens, seed S' with a kind of Markov"):
        strategy_case_of(Last(), model="GPT, 2 tokens, seed 1", prompts=[[0]], seeds=[0])

from typing import ClassVar

import attrs
import decodekit as dk
import pytest
import torch
from decodekit import CallContext, History, ParameterError, Processor, StatefulProcessor, param
from decodekit.chain import Chain
from decodekit.distribution import Distribution
from decodekit.flow import applied
from decodekit.history import no_history
from decodekit.testing.models import MarkovModel


@attrs.frozen
class Add(Processor):
    NAME: ClassVar[str] = "add"
    add: float = param(0.0, neutral=0.0, help="What is added.")

    def __call__(self, logits, history):
        return logits + self.add


@attrs.frozen
class Times(Processor):
    NAME: ClassVar[str] = "times"
    times: float = param(1.0, neutral=1.0, help="The factor.")

    def __call__(self, logits, history):
        return logits * self.times


@attrs.frozen
class Count(StatefulProcessor[int]):
    NAME: ClassVar[str] = "count"

    def init(self, prompt):
        return len(prompt)

    def advance(self, state, token, logits):
        return state + int(logits[token])

    def process(self, logits, history, states):
        return logits + torch.tensor(states, dtype=logits.dtype)[:, None]


class Remember(Count):
    def memory(self, logits, processed):
        return logits


HISTORY = History.of([[1], [2, 3]])


def test_the_order_is_the_users():
    logits = torch.ones(2, 4)
    first, _ = Chain([Add(2), Times(10)]).apply(logits, HISTORY, [(), ()])
    second, _ = Chain([Times(10), Add(2)]).apply(logits, HISTORY, [(), ()])
    assert first[0, 0] == 30
    assert second[0, 0] == 12
    assert str(Chain([Times(10), Add(2)])) == "times=10 > add=2"
    assert str(Chain()) == "none"


@pytest.mark.parametrize("wrong", ["top_k=5", [Times(2), "top_k"], [Times]], ids=str)
def test_what_is_no_processor_is_refused_with_the_text_form(wrong):
    with pytest.raises(ParameterError, match=r"none: the text of a chain.*Chain\.parse"):
        Chain(wrong)


@pytest.mark.parametrize(
    ("given", "taken"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_probabilities_are_never_below_float32(given, taken):
    scores, _ = Chain().apply(torch.zeros(2, 4, dtype=given), HISTORY, [(), ()])
    assert scores.dtype == taken


def test_what_changes_nothing_is_dropped_once_and_keeps_nobody_waiting():
    assert Chain([Add(0), Times(2), Times(1)]).bind(CallContext(vocab_size=4)).processors == (Times(2),)


def test_a_chain_cleans_when_one_of_its_processors_does():
    class Clean(Times):
        CLEANS = True

    assert Chain([Add(1), Clean(2)]).cleans
    assert not Chain([Add(1), Times(2)]).cleans


def test_states_are_values_in_the_order_of_the_chain():
    chain = Chain([Count(), Add(1), Count()])
    states = chain.init([7, 7])
    assert states == (2, 2)
    scores, outputs = chain.apply(torch.zeros(1, 4), History.of([[7, 7]]), [states])
    assert scores[0, 0] == 5
    later = chain.advance(states, 0, outputs[0])
    assert later == (4, 7)
    assert states == (2, 2)


def test_a_distribution_normalises_and_names_its_argmax():
    scores = torch.tensor([[0.0, 3.0, 3.0, -torch.inf]], dtype=torch.float64)
    p = Distribution(scores, scores)
    assert p.argmax().tolist() == [1]
    assert p.probs.sum().item() == pytest.approx(1)
    assert p.probs[0, 3] == 0
    assert p.logprobs_of([[2]])[0][0] == pytest.approx(float(scores.log_softmax(-1)[0, 2]))
    twice = p.select([0, 0])
    assert twice.scores.shape == (2, 4)


@pytest.mark.parametrize(("cls", "remembered"), [(Count, 4.0), (Remember, 1.0)])
def test_advance_sees_the_result_or_what_a_processor_keeps_instead(cls, remembered):
    chain = Chain([cls()])
    scores, memories = chain.apply(torch.ones(1, 2), HISTORY.select([0]), [(3,)])
    assert scores.tolist() == [[4.0, 4.0]]
    assert memories[0][0].values.tolist() == [remembered, remembered]
    assert chain.advance((3,), 1, memories[0]) == (3 + remembered,)


@attrs.frozen
class Table(Processor):
    NAME: ClassVar[str] = "table"

    values: dict[int, float]

    def __call__(self, logits, history):
        return logits + torch.tensor([self.values.get(token, 0.0) for token in range(logits.shape[1])])


@pytest.mark.parametrize("part", ["bind", "init", "process", "memory", "advance", "forced"])
def test_an_error_of_a_stateful_processor_comes_with_its_name(part):
    def fail(*arguments):
        raise KeyError(part)

    broken = attrs.frozen(type("Broken", (Count,), {"NAME": "broken", part: fail}))
    with pytest.raises(KeyError, match=part) as raised:
        dk.generate(
            MarkovModel.random(5, order=1), torch.tensor([[1]]), max_new_tokens=2, processors=[broken]
        )
    assert raised.value.__notes__[0] == "raised by the processor broken"


@attrs.frozen
class Lost(Add):
    def __call__(self, logits, history):
        return logits + history.nothing


def test_an_error_of_a_processor_comes_with_its_name_and_values():
    with pytest.raises(AttributeError, match="nothing") as raised:
        dk.generate(
            MarkovModel.random(5, order=1), torch.tensor([[1]]), max_new_tokens=2, processors=[Lost(3)]
        )
    assert raised.value.__notes__[0] == "raised by the processor add=3"


def test_an_error_is_not_hidden_by_what_tells_its_processor(monkeypatch):
    monkeypatch.setattr(Lost, "describe", lambda self: self.nothing)
    with pytest.raises(AttributeError, match="'History'") as raised:
        applied(Lost(3), torch.zeros(1, 3), no_history(1, torch.device("cpu")))
    assert raised.value.__notes__ == ["raised by the processor add"]


def test_what_has_no_hash_is_in_a_group_of_its_own():
    one, other = (Chain([Table({1: 2.0})]) for _ in range(2))
    assert one.shape == one.shape != other.shape
    assert len({one.shape, other.shape}) == 2


def test_rows_with_processors_without_a_hash_decode_as_if_alone():
    model, prompts = MarkovModel.random(5, order=1), torch.tensor([[1], [2], [3]])
    chains = [Chain([Table({1: 9.0})]), Chain([Table({2: 9.0})]), Chain([Table({1: 9.0})])]
    together = dk.generate(model, prompts, processors=chains, max_new_tokens=4)
    for row, chain in enumerate(chains):
        alone = dk.generate(model, prompts[row : row + 1], processors=chain, max_new_tokens=4)
        assert torch.equal(together[row], alone[0])

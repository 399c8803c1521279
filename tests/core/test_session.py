"""Whatever is done to a session, its logits are those of a fresh forward of each row alone."""

import pytest
import torch
from decodekit import Capability, CapabilityError, ParameterError
from decodekit.compiled import CompiledStep
from decodekit.regions import slots_for
from decodekit.session import Session
from decodekit.testing.models import CacheHashModel, tiny_llama, tiny_mamba, tiny_mistral
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

VOCAB = 16
CAPACITY = 256
MODELS = {
    "llama": tiny_llama(VOCAB),
    "mistral": tiny_mistral(VOCAB, window=4),
    "hash": CacheHashModel(VOCAB),
    "mamba": tiny_mamba(VOCAB, dtype=torch.float64),
}


def fresh_logits(model, row):
    with torch.no_grad():
        return model(torch.tensor([row])).logits[0, -1]


class SessionMachine(RuleBasedStateMachine):
    """Feeds, forks, reorders, drops and takes back; compares after every feed."""

    model_name = "llama"
    cache = "dynamic"
    rollback_allowed = True
    ragged_feeds = True
    atol = 1e-9

    def __init__(self):
        super().__init__()
        self.model = MODELS[self.model_name]
        self.session = Session(self.model, cache=self.cache, capacity=CAPACITY)
        self.rows: list[list[int]] = []
        self.floors: list[int] = []  # what stands below can't be taken back

    @initialize(
        prompts=st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=7), min_size=1, max_size=3)
    )
    def prefill(self, prompts):
        width = max(map(len, prompts))
        padded = [[0] * (width - len(prompt)) + prompt for prompt in prompts]
        self.rows = [list(prompt) for prompt in prompts]
        self._feed(padded, [len(prompt) for prompt in prompts], from_right=True)
        self.floors = [len(row) for row in self.rows]

    def _feed(self, padded, counts, from_right=False):
        with torch.no_grad():
            output = self.session.feed(torch.tensor(padded), counts)
        for row, count in enumerate(counts):
            if count:
                column = -1 if from_right else count - 1
                expected = fresh_logits(self.model, self.rows[row])
                torch.testing.assert_close(output.logits[row, column], expected, rtol=0, atol=self.atol)

    @precondition(lambda self: max(map(len, self.rows)) < CAPACITY // 4)
    @rule(data=st.data())
    def feed(self, data):
        size = data.draw(st.integers(1, 3))
        blocks = [
            data.draw(
                st.lists(st.integers(0, VOCAB - 1), min_size=0 if self.ragged_feeds else size, max_size=size)
            )
            for _ in self.rows
        ]
        width = max(map(len, blocks))
        if width == 0:
            return
        for row, block in zip(self.rows, blocks, strict=True):
            row += block
        self._feed([block + [0] * (width - len(block)) for block in blocks], [len(block) for block in blocks])

    @rule(data=st.data())
    def select(self, data):
        chosen = data.draw(st.lists(st.integers(0, len(self.rows) - 1), min_size=1, max_size=4))
        self.session.select(chosen)
        self.rows = [list(self.rows[row]) for row in chosen]
        self.floors = [self.floors[row] for row in chosen]

    @precondition(lambda self: self.rollback_allowed)
    @rule(data=st.data())
    def rollback(self, data):
        most = [len(row) - floor for row, floor in zip(self.rows, self.floors, strict=True)]
        counts = [data.draw(st.integers(0, limit)) for limit in most]
        self.session.rollback(counts)
        self.rows = [row[: len(row) - count] for row, count in zip(self.rows, counts, strict=True)]

    @rule()
    def settle(self):
        self.session.settle()
        self.floors = [len(row) for row in self.rows]

    @invariant()
    def lengths(self):
        assert self.session.lengths == [len(row) for row in self.rows]

    @precondition(lambda self: self.rollback_allowed)
    @invariant()
    def what_was_taken_back_leaves_no_slot(self):
        assert self.session.width == max(map(len, self.rows), default=0)


def machine(model, cache_kind, *, rollback=True, ragged=True, atol=1e-9):
    body = {
        "model_name": model,
        "cache": cache_kind,
        "rollback_allowed": rollback,
        "ragged_feeds": ragged,
        "atol": atol,
    }
    made = type(f"{model}_{cache_kind}", (SessionMachine,), body)
    case = made.TestCase
    case.settings = settings(stateful_step_count=12)
    return case


TestLlamaDynamic = machine("llama", "dynamic")
TestLlamaStatic = machine("llama", "static")
TestLlamaWithoutCache = machine("llama", "none")
TestSlidingWindow = machine("mistral", "dynamic")
TestSlidingWindowStatic = machine("mistral", "static", rollback=False, ragged=False)
TestSlidingWindowWithoutCache = machine("mistral", "none")
TestHashDynamic = machine("hash", "dynamic")
TestHashStatic = machine("hash", "static")
TestHashWithoutCache = machine("hash", "none")
TestRecurrent = machine("mamba", "dynamic", rollback=False, ragged=False, atol=1e-5)
TestRecurrentWithoutCache = machine("mamba", "none", atol=1e-5)


@pytest.mark.parametrize(("model", "kind"), [("mamba", "dynamic"), ("mistral", "static")])
def test_what_cannot_roll_back_says_so_and_stays_as_it_was(model, kind):
    session = Session(MODELS[model], cache=kind, capacity=CAPACITY)
    with torch.no_grad():
        session.feed(torch.tensor([[3, 4], [5, 6]]))
        before = session.lengths
        assert Capability.ROLLBACK not in session.offers
        with pytest.raises(CapabilityError, match=r"use_cache=False|dynamic cache"):
            session.rollback([1, 0])
        with pytest.raises(CapabilityError, match="rollback is not possible"):
            session.feed(torch.tensor([[3, 4], [5, 0]]), [2, 1])
        assert session.lengths == before
        output = session.feed(torch.tensor([[7], [7]]))
    torch.testing.assert_close(output.logits[1, 0], fresh_logits(MODELS[model], [5, 6, 7]), rtol=0, atol=1e-5)


def test_recurrent_models_offer_selection_only():
    assert Session(MODELS["mamba"]).offers == {Capability.SELECT, Capability.HIDDEN_STATES}
    assert Session(MODELS["mamba"], cache="none").offers == frozenset(Capability)


def test_hidden_states_are_those_of_a_fresh_forward():
    model = MODELS["llama"]
    session = Session(model)
    with torch.no_grad():
        session.feed(torch.tensor([[0, 0, 5], [3, 4, 5]]), [1, 3])
        output = session.feed(torch.tensor([[7, 8], [9, 0]]), [2, 1], hidden=True)
        expected = model(torch.tensor([[5, 7, 8]]), output_hidden_states=True).hidden_states
    assert len(output.hidden_states) == len(expected)
    for got, want in zip(output.hidden_states, expected, strict=True):
        torch.testing.assert_close(got[0], want[0, -2:], rtol=0, atol=1e-9)


def test_counters_count_tokens_and_not_padding():
    session = Session(MODELS["llama"])
    with torch.no_grad():
        session.feed(torch.tensor([[0, 0, 5], [3, 4, 5]]), [1, 3])
        session.feed(torch.tensor([[7, 8], [9, 0]]), [2, 1])
    assert (session.forward_passes, session.tokens_fed) == (2, 7)


@pytest.mark.parametrize(("kind", "capacity"), [("paged", 10), ("static", None)])
def test_an_unknown_cache_is_refused_by_name(kind, capacity):
    with pytest.raises(ParameterError, match=f"cache='{kind}'"):
        Session(MODELS["llama"], cache=kind, capacity=capacity)


@given(batch=st.integers(1, 17), count=st.integers(1, 20))
def test_a_filled_pass_is_the_longest_that_needs_no_larger_kernel(batch, count):
    session = Session(MODELS["llama"])
    session.pads = [0] * batch
    assert session.filled is None
    session.compiled = CompiledStep(None, [])
    filled = session.filled(count)
    if batch * count > CompiledStep.most:
        assert filled == count
    else:
        assert filled >= count
        assert slots_for(batch * filled) == slots_for(batch * count) < slots_for(batch * (filled + 1))

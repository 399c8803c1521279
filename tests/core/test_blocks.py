from typing import ClassVar

import attrs
import pytest
import torch
from decodekit import PluginError, StatefulProcessor, Strategy, verified
from decodekit.batch import Batch
from decodekit.chain import Chain
from decodekit.loop import decode
from decodekit.randomness import SeededNoise
from decodekit.row import Row
from decodekit.session import Session
from decodekit.stopping import StopRules
from decodekit.testing.models import CacheHashModel, MarkovModel, tiny_llama, tiny_mistral
from hypothesis import given, settings
from hypothesis import strategies as st

VOCAB, EOS = 6, 5
MODELS = {"llama": tiny_llama(VOCAB, seed=3), "hash": CacheHashModel(VOCAB)}
PROMPTS = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=5), min_size=1, max_size=3)


def batch_of(model, prompts, *processors, limit=10, cache="dynamic", copies=1):
    rows = [Row(prompt=i, slot=i, prompt_tokens=list(p), seed=i) for i, p in enumerate(prompts)]
    stops = StopRules(max_new_tokens=limit, eos_token_ids=frozenset([EOS]))
    session = Session(model, cache=cache, capacity=64)
    chains = [Chain(processors)]
    return Batch(rows, session, chains=chains, noise=SeededNoise(), stops=stops, copies=copies)


def tokens_of(batch, strategy):
    for _ in decode(batch, strategy):
        pass
    return [row.tokens for row in sorted(batch.finished, key=lambda row: (row.prompt, row.lane))]


class Plain(Strategy):
    """One draw a row and step."""

    NAME = "plain"

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(batch.draw(p), p)


@attrs.frozen
class Chant(StatefulProcessor[tuple[int, ...]]):
    """After 1 comes 2, 3, 2; its state is what is due. It may be wrong about what it says is forced."""

    NAME: ClassVar[str] = "chant"
    wrong: bool = False

    def init(self, prompt):
        return ()

    def advance(self, state, token, logits):
        return state[1:] if state else (2, 3, 2) * (token == 1)

    def process(self, logits, history, states):
        due = torch.tensor(
            [[token not in (state[:1] or (token,)) for token in range(VOCAB)] for state in states]
        )
        return logits.masked_fill(due, -torch.inf)

    def forced(self, state):
        return (*state, 4) if self.wrong else state


class Ahead(Strategy):
    """`Plain`, with what is forced as a draft."""

    NAME = "ahead"

    def step(self, batch):
        drafts = batch.forced()
        p = batch.dist(batch.logits(drafts), drafts)
        batch.commit(verified(drafts, batch.draw(p)), p)


@pytest.mark.parametrize("name", ["llama", "hash"])
@settings(max_examples=8)
@given(prompts=PROMPTS, wrong=st.booleans(), limit=st.integers(1, 12))
def test_forced_tokens_are_a_draft_that_is_verified(name, prompts, wrong, limit):
    plain, ahead = (batch_of(MODELS[name], prompts, Chant(wrong), limit=limit, copies=2) for _ in range(2))
    assert tokens_of(ahead, Ahead()) == tokens_of(plain, Plain())


def test_forced_tokens_save_forward_passes_where_drafts_can_be_taken_back():
    model = MarkovModel(torch.zeros(VOCAB, VOCAB).index_fill(1, torch.tensor([1]), 50.0))  # always token 1
    batch = batch_of(model, [[0], [0, 1]], Chant())
    assert tokens_of(batch, Ahead()) == [[1, 2, 3, 2, 1, 2, 3, 2, 1, 2]] * 2
    assert batch.stats()["forward_passes"] == 1 + 3
    assert batch_of(model, [[0]]).forced() is None
    assert batch_of(tiny_mistral(VOCAB), [[0]], Chant(), cache="static").forced() is None


@pytest.mark.parametrize(
    ("wrong", "named"),
    [(torch.tensor([0.5, 1.0]), "0.5"), ([[1], [6]], "6"), ([[-1], [1]], "-1"), ([[True], [1]], "True")],
    ids=str,
)
def test_what_is_no_token_is_not_committed(wrong, named):
    class Wrong(Plain):
        NAME = "wrong"

        def step(self, batch):
            batch.commit(wrong, batch.dist(batch.logits()))

    with pytest.raises(PluginError, match=f"commit got {named} as a token"):
        tokens_of(batch_of(MODELS["hash"], [[1], [2]]), Wrong())

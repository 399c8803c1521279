"""The verbs that beams, speculation and particle methods are built on, each proved by a small strategy."""

import random
from typing import ClassVar

import attrs
import pytest
import torch
from decodekit import (
    Capability,
    EmptySupportError,
    NonFiniteLogitsError,
    PluginError,
    Processor,
    Purpose,
    StatefulProcessor,
    Strategy,
)
from decodekit.batch import Batch
from decodekit.chain import Chain
from decodekit.keep import Keep
from decodekit.loop import decode
from decodekit.randomness import SeededNoise
from decodekit.row import Row
from decodekit.session import Session
from decodekit.stopping import StopRules
from decodekit.testing.models import CacheHashModel, MarkovModel, tiny_llama, tiny_mistral
from hypothesis import given, settings
from hypothesis import strategies as st

VOCAB = 6
PLAIN = (Chain(),)
EOS = 5
MODELS = {
    "llama": tiny_llama(VOCAB, seed=3),
    "mistral": tiny_mistral(VOCAB, window=4, seed=3),
    "hash": CacheHashModel(VOCAB),
    "markov": MarkovModel.random(VOCAB, order=2),
}


class Plain(Strategy):
    """One draw a row and step."""

    NAME = "plain"

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(batch.draw(p), p)


@attrs.frozen
class Coupled(Strategy):
    """Verifies made-up drafts: what agrees with the draws is kept, and the first draw that does not."""

    NAME = "coupled"
    NEEDS = frozenset({Capability.ROLLBACK, Capability.POSITIONS})
    seed: int = 0
    most: int = 3

    def start(self, batch):
        for row in batch.rows:
            row.memo["random"] = random.Random(self.seed + row.prompt)

    def step(self, batch):
        drafts = [self.draft(row) for row in batch.rows]
        p = batch.dist(batch.logits(drafts), drafts)
        drawn = batch.draw(p).tolist()
        blocks = []
        for row, tokens, draft in zip(batch.rows, drawn, drafts, strict=True):
            agreed = next((k for k, token in enumerate(draft) if tokens[k] != token), len(draft))
            blocks.append(tokens[: agreed + 1])
            row.drafted += len(draft)
            row.accepted += agreed
        batch.commit(blocks, p)

    def draft(self, row):
        dice = row.memo["random"]
        return [dice.randrange(VOCAB) for _ in range(dice.randrange(self.most + 1))]


@attrs.frozen
class Inhibit(StatefulProcessor[tuple[int, ...]]):
    """Lowers what was generated, the more often the more; its state counts."""

    NAME: ClassVar[str] = "inhibit"

    def init(self, prompt):
        return (0,) * VOCAB

    def advance(self, state, token, logits):
        assert logits.shape == (VOCAB,)
        return tuple(count + (token == place) for place, count in enumerate(state))

    def process(self, logits, history, states):
        return logits - torch.tensor(states, dtype=logits.dtype)


@attrs.frozen
class InhibitByHistory(Processor):
    """The same, read off the history."""

    NAME: ClassVar[str] = "inhibit_by_history"

    def __call__(self, logits, history):
        new = torch.where(history.generated_mask, history.tokens, VOCAB)
        counts = torch.nn.functional.one_hot(new, VOCAB + 1).sum(1)[:, :VOCAB]
        return logits - counts


def batch_of(model, prompts, *, chains=PLAIN, copies=1, stops=None, cache="dynamic", numbers=None, **options):
    rows = [
        Row(
            prompt=place,
            slot=place,
            prompt_tokens=list(prompt),
            seed=100 + len(prompt),
            chain=(numbers or {}).get(place, 0),
        )
        for place, prompt in enumerate(prompts)
    ]
    return Batch(
        rows,
        Session(model, cache=cache, capacity=64),
        chains=chains,
        noise=SeededNoise(),
        stops=stops or StopRules(max_new_tokens=10, eos_token_ids=frozenset([EOS])),
        copies=copies,
        **options,
    )


def run(batch, strategy):
    for _ in decode(batch, strategy):
        pass
    return sorted(batch.finished, key=lambda row: (row.prompt, row.lane))


def tokens_of(rows):
    return [row.tokens for row in rows]


PROMPTS = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=5), min_size=1, max_size=3)


@pytest.mark.parametrize("cache", ["dynamic", "static", "none"])
@pytest.mark.parametrize("name", ["llama", "hash", "markov", "mistral"])
@settings(max_examples=10)
@given(prompts=PROMPTS, seed=st.integers(0, 1000), stateful=st.booleans())
def test_a_coupled_draft_changes_the_speed_and_not_one_token(name, cache, prompts, seed, stateful):
    if name == "mistral" and cache == "static":
        return  # no rollback: refused, see below
    chains = [Chain([Inhibit()]) if stateful else Chain([InhibitByHistory()])]
    plain = run(batch_of(MODELS[name], prompts, chains=chains, cache=cache, copies=2), Plain())
    coupled = run(batch_of(MODELS[name], prompts, chains=chains, cache=cache, copies=2), Coupled(seed=seed))
    assert tokens_of(coupled) == tokens_of(plain)


def test_accepted_drafts_save_forward_passes():
    model = MarkovModel(torch.zeros(VOCAB, VOCAB).index_fill(1, torch.tensor([2]), 50.0))  # always token 2

    @attrs.frozen
    class Always2(Coupled):
        NAME = "always2"

        def draft(self, row):
            return [2, 2, 2]

    batch = batch_of(model, [[1], [1, 2]])
    rows = run(batch, Always2())
    assert tokens_of(rows) == [[2] * 10] * 2
    assert batch.stats() == {
        "forward_passes": 1 + 3,
        "tokens_fed": 3 + 2 * 3 + 4 * 2 * 2,
        "drafted": 18,
        "accepted": 18,
    }


@settings(max_examples=15)
@given(PROMPTS)
def test_a_state_is_what_the_history_says(prompts):
    kept = [
        tokens_of(run(batch_of(MODELS["hash"], prompts, chains=[Chain([item])], copies=2), Plain()))
        for item in (Inhibit(), InhibitByHistory())
    ]
    assert kept[0] == kept[1]


@settings(max_examples=15)
@given(prompts=PROMPTS, seed=st.integers(0, 1000))
def test_rows_of_different_chains_share_a_batch(prompts, seed):
    chains = [Chain(), Chain([Inhibit()])]
    numbers = {place: (seed >> place) & 1 for place in range(len(prompts))}
    together = run(batch_of(MODELS["hash"], prompts, chains=chains, numbers=numbers), Coupled())
    for place, prompt in enumerate(prompts):
        alone = run(batch_of(MODELS["hash"], [prompt], chains=[chains[numbers[place]]]), Plain())
        assert together[place].tokens == alone[0].tokens


class Resample(Strategy):
    """A particle filter's moves: forks some rows and drops others at every step."""

    NAME = "resample"
    NEEDS = frozenset({Capability.SELECT})

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(batch.draw(p), p)
        last = len(batch.rows) - 1
        batch.select([last, 0, last])
        for row in batch.rows:
            row.memo["seen"] = [*row.memo.get("seen", []), row.tokens[-1]]


def test_a_fork_has_its_parents_past_and_a_stream_of_its_own():
    kept = {"keep": Keep(logprobs=True), "chains": [Chain([Inhibit()])]}
    for name in ("llama", "mistral", "hash"):
        batch = batch_of(MODELS[name], [[1, 2, 3]], copies=3, stops=StopRules(max_new_tokens=6), **kept)
        rows = run(batch, Resample())
        assert len(rows) == 3
        assert len({row.lane for row in rows}) == 3
        for row in rows:
            assert row.memo["seen"] == row.tokens
            assert len(row.logprobs) == len(row.tokens) == 6
            for step, token in enumerate(row.tokens):
                logits = MODELS[name](torch.tensor([[1, 2, 3, *row.tokens[:step]]])).logits[0, -1].detach()
                counts = torch.bincount(torch.tensor(row.tokens[:step], dtype=torch.long), minlength=VOCAB)
                expected = float((logits - counts).log_softmax(-1)[token])
                assert row.logprobs[step] == pytest.approx(expected, abs=1e-9)
    assert len({tuple(row.tokens) for row in rows}) > 1


def test_forks_of_one_row_draw_differently():
    batch = batch_of(MODELS["hash"], [[1]], copies=40)
    with torch.no_grad():
        batch.prefill()
        p = batch.dist(batch.logits())
        assert len(set(batch.draw(p).tolist())) > 1
        first = batch.uniform(Purpose.ACCEPT)
        assert len(set(first.tolist())) == 40
        assert torch.equal(batch.uniform(Purpose.ACCEPT), first)
        assert not torch.equal(batch.uniform(Purpose.ACCEPT, offset=1), first)


@pytest.mark.parametrize("name", ["llama", "hash"])
def test_another_models_session_follows_the_same_rows(name):
    """A draft model's session is fed on demand, and forks, leaves and rolls back with the rows."""
    draft_model = CacheHashModel(VOCAB) if name == "llama" else tiny_llama(VOCAB, seed=8)

    class Watched(Coupled):
        NAME = "watched"

        def start(self, batch):
            super().start(batch)
            batch.open("draft", draft_model)

        def step(self, batch):
            drafts = [self.draft(row) for row in batch.rows]
            q = batch.logits(drafts, session="draft")
            for place, (row, draft) in enumerate(zip(batch.rows, drafts, strict=True)):
                for count in range(len(draft) + 1):
                    expected = draft_model(torch.tensor([row.since(0) + draft[:count]])).logits[0, -1]
                    torch.testing.assert_close(q[place, count], expected, rtol=0, atol=1e-9)
            super().step(batch)

    prompts = [[1, 2], [3], [4, 0, 1, 2]]
    watched = run(batch_of(MODELS[name], prompts, copies=2), Watched())
    assert tokens_of(watched) == tokens_of(run(batch_of(MODELS[name], prompts, copies=2), Plain()))


def test_hidden_states_come_when_they_are_asked_for():
    seen = []

    class Curious(Plain):
        NAME = "curious"

        def step(self, batch):
            output = batch.forward([[1, 2]] * len(batch.rows))
            for row, hidden in zip(batch.rows, output.hidden_states[-1], strict=True):
                ids = torch.tensor([[*row.since(0), 1, 2]])
                fresh = MODELS["llama"](ids, output_hidden_states=True).hidden_states[-1][0, -3:]
                torch.testing.assert_close(hidden, fresh, rtol=0, atol=1e-9)
                seen.append(row)
            super().step(batch)

    run(batch_of(MODELS["llama"], [[1, 2], [3]], hidden=True), Curious())
    assert seen


class Script(Strategy):
    """Commits given blocks."""

    NAME = "script"

    def __init__(self, *blocks):
        self.blocks = list(blocks)

    def step(self, batch):
        blocks = self.blocks.pop(0)
        drafts = [block[:-1] for block in blocks]
        batch.commit(blocks, batch.dist(batch.logits(drafts), drafts))


def test_what_is_committed_is_trimmed_in_one_place():
    stops = StopRules(
        max_new_tokens=4,
        eos_token_ids=frozenset([EOS, 4]),
        criteria=(lambda input_ids, scores: (input_ids[:, -2:] == 1).all(1),),
    )
    prompts = [[0], [0, 0], [0], [0, 0, 0]]
    batch = batch_of(MODELS["hash"], prompts, stops=stops)
    rows = run(batch, Script([[2, 3, EOS, 2], [2, 1, 1, 1], [4, 2, 2, 2], [2, 2]], [[3, 3, 3]]))
    assert tokens_of(rows) == [[2, 3, EOS], [2, 1, 1], [4], [2, 2, 3, 3]]
    assert [row.finish_reason for row in rows] == ["eos", "criterion", "eos", "length"]


def test_a_row_may_wait_while_others_go_on():
    stops = StopRules(max_new_tokens=3)
    prompts = [[1, 2], [3]]
    rows = run(
        batch_of(MODELS["hash"], prompts, stops=stops), Script([[1], []], [[2], [0]], [[], [1, 2]], [[0]])
    )
    assert tokens_of(rows) == [[1, 2, 0], [0, 1, 2]]


@pytest.mark.parametrize(
    ("blocks", "match"),
    [([[1]], "1 blocks"), ([[], []], "committed no token"), ([[1, 2], [3, 1]], None)],
)
def test_a_strategy_that_commits_wrongly_is_told(blocks, match):
    class Wrong(Strategy):
        NAME = "wrong"

        def step(self, batch):
            p = batch.dist(batch.logits())
            batch.commit(blocks, p)

    with pytest.raises(PluginError, match=match or "2 tokens"):
        run(batch_of(MODELS["hash"], [[1], [2]]), Wrong())


def test_committing_twice_in_a_step_is_an_error():
    class Twice(Plain):
        NAME = "twice"

        def step(self, batch):
            super().step(batch)
            super().step(batch)

    with pytest.raises(PluginError, match="once a step"):
        run(batch_of(MODELS["hash"], [[1]]), Twice())


def test_a_row_of_nan_is_named_with_its_step():
    table = torch.zeros(3, 3)
    table[0, 1] = table[2, 2] = 50.0
    table[1] = torch.nan
    batch = batch_of(MarkovModel(table), [[2], [0]], stops=StopRules(max_new_tokens=5), copies=2)
    with pytest.raises(NonFiniteLogitsError, match=r"row 2 \(prompt 1\) at step 1"):
        run(batch, Plain())


def test_a_chain_that_leaves_nothing_is_named():
    @attrs.frozen
    class Nothing(Processor):
        NAME = "nothing"

        def __call__(self, logits, history):
            return torch.full_like(logits, -torch.inf)

    with pytest.raises(EmptySupportError, match="the chain nothing leaves no token for row 0"):
        run(batch_of(MODELS["hash"], [[1]], chains=[Chain([Nothing()])]), Plain())


def test_cold_rows_take_the_argmax_and_others_draw():
    batch = batch_of(MODELS["markov"], [[1]] * 30)
    for row in batch.rows:
        row.seed, row.greedy = row.slot, row.slot % 2 == 0
    with torch.no_grad():
        batch.prefill()
        p = batch.dist(batch.logits())
        drawn = batch.draw(p)
    assert set(drawn[::2].tolist()) == {int(p.argmax()[0])}
    assert len(set(drawn[1::2].tolist())) > 1


def test_values_that_are_kept_are_those_of_the_committed_tokens():
    keep = Keep(logprobs=True, scores=True, logits=True)
    chains = [Chain([InhibitByHistory()])]
    rows = run(batch_of(MODELS["llama"], [[1, 2], [3]], chains=chains, keep=keep), Coupled())
    for row in rows:
        assert len(row.logprobs) == len(row.scores) == len(row.logits) == len(row.tokens)
        for step, token in enumerate(row.tokens):
            before = torch.tensor([row.prompt_tokens + row.tokens[:step]])
            raw = MODELS["llama"](before).logits[0, -1].detach()
            counts = torch.bincount(torch.tensor(row.tokens[:step], dtype=torch.long), minlength=VOCAB)
            torch.testing.assert_close(row.logits[step], raw, rtol=0, atol=1e-9)
            torch.testing.assert_close(row.scores[step], raw - counts, rtol=0, atol=1e-9)
            assert row.logprobs[step] == pytest.approx(float((raw - counts).log_softmax(-1)[token]), abs=1e-9)

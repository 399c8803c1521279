"""Hypothetical tokens come and go; every output is that of a fresh forward of the row alone."""

import pytest
import torch
from decodekit.row import Row
from decodekit.session import Session
from decodekit.testing.models import CacheHashModel, tiny_llama, tiny_mistral
from decodekit.tracking import TrackedSession
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

VOCAB = 4  # few tokens, so that drafts often agree with what is committed
TOKENS = st.integers(0, VOCAB - 1)
MODELS = {
    "llama": tiny_llama(VOCAB),
    "mistral": tiny_mistral(VOCAB, window=4),
    "hash": CacheHashModel(VOCAB),
}


def fresh_logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0, -1]


class TrackedMachine(RuleBasedStateMachine):
    model_name = "llama"
    cache = "dynamic"

    @initialize(prompts=st.lists(st.lists(TOKENS, min_size=1, max_size=6), min_size=1, max_size=3))
    def prefill(self, prompts):
        self.model = MODELS[self.model_name]
        self.tracked = TrackedSession(Session(self.model, cache=self.cache, capacity=512))
        self.rows = [Row(prompt=place, prompt_tokens=prompt) for place, prompt in enumerate(prompts)]

    def _drafts(self, data):
        return [data.draw(st.lists(TOKENS, max_size=3)) for _ in self.rows]

    def _expect(self, logits, drafts, columns):
        for place, (row, draft) in enumerate(zip(self.rows, drafts, strict=True)):
            for column, count in enumerate(columns(draft)):
                expected = fresh_logits(self.model, row.since(0) + draft[:count])
                torch.testing.assert_close(logits[place, column], expected, rtol=0, atol=1e-9)

    @rule(data=st.data())
    def look(self, data):
        drafts = self._drafts(data)
        with torch.no_grad():
            output = self.tracked.forward(self.rows, drafts)
        longest = max(map(len, drafts))
        assert output.logits.shape[:2] == (len(self.rows), longest + 1)
        self._expect(
            output.logits, drafts, lambda draft: [min(count, len(draft)) for count in range(longest + 1)]
        )

    @rule(data=st.data())
    def look_at_the_end(self, data):
        drafts = self._drafts(data)
        with torch.no_grad():
            output = self.tracked.forward(self.rows, drafts, last=True)
        assert output.logits.shape[:2] == (len(self.rows), 1)
        self._expect(output.logits, drafts, lambda draft: [len(draft)])

    @rule(data=st.data())
    def draft_token_by_token(self, data):
        drafts = [[] for _ in self.rows]
        for _ in range(data.draw(st.integers(1, 3))):
            with torch.no_grad():
                output = self.tracked.forward(self.rows, drafts, last=True)
            self._expect(output.logits, drafts, lambda draft: [len(draft)])
            drafts = [[*draft, data.draw(TOKENS)] for draft in drafts]

    @precondition(lambda self: max(row.length for row in self.rows) < 40)
    @rule(data=st.data())
    def commit(self, data):
        blocks = self._drafts(data)
        for row, block in zip(self.rows, blocks, strict=True):
            row.tokens += block
        self.tracked.committed(blocks)

    @precondition(lambda self: max(row.length for row in self.rows) < 40)
    @rule(data=st.data())
    def commit_what_was_fed_before_it_was_read(self, data):
        blocks = [[data.draw(TOKENS)] for _ in self.rows]
        tokens = torch.tensor(blocks)[:, 0]
        with torch.no_grad():
            self.tracked.begin(tokens)
        for row, block in zip(self.rows, blocks, strict=True):
            row.tokens += block
        self.tracked.committed(blocks, tokens)

    @rule(data=st.data())
    def select(self, data):
        chosen = data.draw(st.lists(st.integers(0, len(self.rows) - 1), min_size=1, max_size=4))
        self.tracked.select(chosen)
        self.rows = [self.rows[place].fork() for place in chosen]


def machine(model, cache_kind):
    case = type(
        f"{model}_{cache_kind}", (TrackedMachine,), {"model_name": model, "cache": cache_kind}
    ).TestCase
    case.settings = settings(stateful_step_count=12)
    return case


TestLlamaDynamic = machine("llama", "dynamic")
TestLlamaStatic = machine("llama", "static")
TestSlidingWindow = machine("mistral", "dynamic")
TestHashDynamic = machine("hash", "dynamic")
TestHashWithoutCache = machine("hash", "none")


def tracked_pair():
    rows = [Row(prompt=0, prompt_tokens=[1, 2]), Row(prompt=1, prompt_tokens=[3])]
    return TrackedSession(Session(MODELS["hash"])), rows


def test_what_is_held_already_is_not_computed_again():
    tracked, rows = tracked_pair()
    with torch.no_grad():
        tracked.forward(rows, [[], []])
        assert tracked.session.forward_passes == 1
        tracked.forward(rows, [[], []])
        assert tracked.session.forward_passes == 1
        tracked.forward(rows, [[1], [2]], last=True)
        tracked.forward(rows, [[1, 3], [2, 3]], last=True)
    assert (tracked.session.forward_passes, tracked.session.tokens_fed) == (3, 3 + 2 + 2)


@pytest.mark.parametrize("accepted", [0, 1, 2])
def test_an_accepted_draft_is_kept_but_for_its_last_token(accepted):
    tracked, rows = tracked_pair()
    draft = [1, 2]
    with torch.no_grad():
        tracked.forward(rows, [draft, draft])
        blocks = [[*draft[:accepted], 3], [*draft[:accepted], 3]]
        for row, block in zip(rows, blocks, strict=True):
            row.tokens += block
        tracked.committed(blocks)
    assert tracked.session.lengths == [row.length - 1 for row in rows]

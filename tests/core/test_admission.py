"""Rows that join a running batch can't tell: each is what it is alone."""

from collections import deque
from typing import ClassVar

import attrs
import pytest
import torch
from decodekit import Chain, PluginError, Processor, Strategy, caches
from decodekit.admission import OpenBatch, OwnStops, can_admit, decode_openly
from decodekit.call import Options, prepare
from decodekit.loop import decode
from decodekit.randomness import SeededNoise
from decodekit.registry import registry
from decodekit.row import Row
from decodekit.session import Session
from decodekit.stopping import StopRules
from decodekit.testing.models import CacheHashModel, tiny_llama, tiny_mamba, tiny_mistral
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parity.architectures import model_of

VOCAB = 12
EOS = 11
Greedy = registry().entry("strategies", "greedy").cls
MODELS = {
    "llama": tiny_llama(VOCAB),
    "mistral": tiny_mistral(VOCAB, window=4),
    "hash": CacheHashModel(VOCAB),
    "mamba": tiny_mamba(VOCAB, dtype=torch.float64),
}


@attrs.frozen
class Visible(Processor):
    """Moves the logits by all that a history shows: tokens, their places, and where the prompt ends."""

    NAME: ClassVar[str] = "visible"

    def __call__(self, logits, history):
        places = torch.arange(history.tokens.shape[1]) - history.pads[:, None]
        seen = (history.tokens * 31 + places * 7 + history.generated_mask * 5) * history.mask
        return logits + ((seen.sum(1, keepdim=True) + torch.arange(VOCAB)) % 7).to(logits)


CHAINS = [Chain.parse(text) for text in ("none", "temperature=0.5 > top_k=3", "repetition_penalty=1.5")]
CHAINS += [Chain([Visible()])]


@attrs.frozen
class Asked:
    """A prompt, and what is asked for it."""

    ids: list[int]
    seed: int
    most: int
    chain: int
    greedy: bool


ASKED = st.builds(
    Asked,
    ids=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=7),
    seed=st.integers(0, 9),
    most=st.integers(1, 9),
    chain=st.integers(0, len(CHAINS) - 1),
    greedy=st.booleans(),
)


def own_rules(asked):
    """Ends at EOS, at its length, and where a criterion finds an odd token at an odd place."""

    def odd(input_ids, scores):
        assert len({len(row) for row in input_ids}) == 1
        return torch.tensor(
            [len(row) > len(asked.ids) + 3 and row[-1] % 5 == 4 for row in input_ids.tolist()]
        )

    return StopRules(
        max_new_tokens=asked.most,
        eos_token_ids=frozenset([EOS]),
        criteria=(odd,),
        prompt_width=len(asked.ids),
    )


def batch_of(model, asked, copies):
    """A batch of some prompts, by their numbers."""
    numbers = sorted({one.chain for one in asked.values()})
    rows = [
        Row(
            prompt=number,
            slot=slot,
            prompt_tokens=one.ids,
            seed=one.seed,
            chain=numbers.index(one.chain),
            greedy=one.greedy,
        )
        for slot, (number, one) in enumerate(asked.items())
    ]
    return OpenBatch(
        rows,
        Session(model),
        chains=[CHAINS[number] for number in numbers],
        noise=SeededNoise(),
        stops=OwnStops.of_each({number: own_rules(one) for number, one in asked.items()}),
        copies=copies,
    )


def told(rows):
    return {(row.prompt, row.lane): (row.tokens, row.finish_reason) for row in rows}


def alone(model, strategy, asked, copies):
    found = {}
    for number, one in enumerate(asked):
        batch = batch_of(model, {number: one}, copies)
        batch.stops = own_rules(one)
        for _ in decode(batch, strategy):
            pass
        found |= told(batch.finished)
    return found


def admitted(model, strategy, asked, copies, size, least):
    waiting, found = deque(enumerate(asked)), {}

    def wait(free):
        count = min(max(free // copies, 1), len(waiting))
        return batch_of(model, dict(waiting.popleft() for _ in range(count)), copies) if count else None

    for rows in decode_openly(wait, strategy, size * copies, least * copies):
        assert len(rows) % copies == 0  # prompts leave as a whole
        assert not found.keys() & told(rows).keys()
        found |= told(rows)
    return found


@pytest.mark.parametrize("name", ["greedy", "sample"])
@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=8)
@given(
    asked=st.lists(ASKED, min_size=1, max_size=8),
    copies=st.integers(1, 2),
    size=st.integers(1, 4),
    least=st.integers(1, 4),
)
def test_what_a_prompt_gets_does_not_depend_on_when_it_came(model, name, asked, copies, size, least):
    strategy = registry().resolve("strategies", name)
    expected = alone(MODELS[model], strategy, asked, copies)
    assert admitted(MODELS[model], strategy, asked, copies, size, min(least, size)) == expected


class Watched(OpenBatch):
    """Counts how many rows live at each step."""

    live = None

    def settle(self):
        self.live.append(len(self.rows))
        super().settle()


def test_prompts_join_as_others_end_and_the_batch_stays_full():
    """The number of steps is what the tokens fill, and not the longest row of each batch."""
    lengths = [2, 30, 3, 25, 2, 20, 4, 28, 3, 2]
    waiting = deque(enumerate(lengths))
    Watched.live = []

    def wait(free):
        count = min(free, len(waiting))
        some = [waiting.popleft() for _ in range(count)]
        rows = [Row(prompt=number, slot=slot, prompt_tokens=[1]) for slot, (number, _) in enumerate(some)]
        rules = {number: StopRules(max_new_tokens=length) for number, length in some}
        stops = OwnStops.of_each(rules) if rules else None
        return Watched(rows, Session(MODELS["hash"]), noise=SeededNoise(), stops=stops) if some else None

    ended = [row for rows in decode_openly(wait, Greedy(), 2, 1) for row in rows]
    assert sorted((row.prompt, len(row.tokens)) for row in ended) == sorted(enumerate(lengths))
    assert max(Watched.live) <= 2
    assert sum(Watched.live) == sum(lengths)
    by_batches = sum(max(pair) for pair in zip(lengths[::2], lengths[1::2], strict=True))
    assert len(Watched.live) <= (sum(lengths) + max(lengths)) // 2 + len(lengths) < by_batches


def test_what_has_ended_is_forgotten():
    """A long job keeps nothing of the prompts that are done: no rows, no rules, no columns of padding."""
    waiting, kept = deque(range(40)), []

    def wait(free):
        if not waiting:
            return None
        number = waiting.popleft()
        asked = Asked([1] * (1 + number % 5), seed=0, most=1 + number % 6, chain=number % 4, greedy=True)
        batch = batch_of(MODELS["llama"], {number: asked}, 1)
        kept.append(batch)
        return batch

    for _ in decode_openly(wait, Greedy(), 3, 1):
        batch = kept[0]
        assert len(batch.stops.rules) == len(batch.rows) <= 3
        assert len(batch._chains) <= 3
        assert batch.target.width <= 11
        assert batch._ledger.history.tokens.shape[1] <= 11
        assert not batch.finished


@attrs.frozen
class Hoarder(Strategy):
    """Keeps something for the whole call, and says it does not."""

    NAME = "hoarder"
    ADMITS = True

    def step(self, batch):
        batch.memo["steps"] = batch.memo.get("steps", 0) + 1
        p = batch.dist(batch.logits())
        batch.commit(p.argmax(), p)


def test_a_strategy_that_keeps_something_for_the_call_is_found_out():
    asked = [Asked([1], 0, most, 0, True) for most in (2, 9, 9)]
    with pytest.raises(PluginError, match=r"declares ADMITS, and keeps steps in batch\.memo"):
        admitted(MODELS["llama"], Hoarder(), asked, 1, 2, 1)


def call_of(model, **values):
    ids = torch.tensor([[3, 4]])
    own = {name: values.pop(name) for name in ("strategy", "logits_processor") if name in values}
    return prepare(model, ids, None, {"max_new_tokens": 4, **values}, Options(**own))


def test_who_may_join_follows_from_strategy_model_and_cache():
    llama = MODELS["llama"]
    assert can_admit(llama, call_of(llama))
    assert can_admit(llama, call_of(llama, do_sample=True, guidance_scale=2.0))
    assert can_admit(MODELS["mamba"], call_of(MODELS["mamba"]))
    refused = [
        {"num_beams": 2},
        {"prompt_lookup_num_tokens": 2},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"logits_processor": [lambda ids, scores: scores]},
    ]
    assert [can_admit(llama, call_of(llama, **values)) for values in refused] == [False] * len(refused)


def test_models_with_an_encoder_get_their_prompts_batch_by_batch():
    model = model_of("t5")
    assert not can_admit(model, call_of(model))


def test_gradients_are_as_the_caller_had_them():
    batches = deque([batch_of(MODELS["llama"], {0: Asked([1], 0, 3, 0, True)}, 1)])
    for _ in decode_openly(lambda free: batches.popleft() if batches else None, Greedy(), 1, 1):
        assert torch.is_grad_enabled()


def test_caches_with_room_behind_their_tokens_are_joined_too():
    asked = [Asked([1] * (1 + number), number, 2 + number % 4, 1, greedy=False) for number in range(6)]

    def growing(model, some, copies):
        batch = batch_of(model, some, copies)
        batch.target.cache = caches.new_cache(model, "growing", None)
        return batch

    waiting, found = deque(enumerate(asked)), {}

    def wait(free):
        count = min(free, len(waiting))
        return growing(MODELS["llama"], dict(waiting.popleft() for _ in range(count)), 1) if count else None

    for rows in decode_openly(wait, Greedy(), 2, 1):
        found |= told(rows)
    assert found == alone(MODELS["llama"], Greedy(), asked, 1)
    assert caches.can_join(caches.new_cache(MODELS["llama"], "growing", None))

"""A chain gives the same whether it looks at all of each row or at no more than it needs."""

from typing import ClassVar

import attrs
import pytest
import torch
from decodekit import CallContext, Chain, Cut, Head, History, Laws, Phase, Place, Processor, Scope, param
from decodekit.errors import PluginError
from decodekit.flow import openings
from decodekit.randomness import GlobalNoise, Purpose, SeededNoise
from decodekit.scores import Scores
from decodekit.testing import ConformanceError, processor_checks
from decodekit_processors.adaptive_p import AdaptiveP
from decodekit_processors.epsilon_cutoff import EpsilonCutoff
from decodekit_processors.eta_cutoff import EtaCutoff
from decodekit_processors.min_p import MinP
from decodekit_processors.mirostat_v2 import MirostatV2
from decodekit_processors.p_less import PLess
from decodekit_processors.quadratic import Quadratic
from decodekit_processors.repetition_penalty import RepetitionPenalty
from decodekit_processors.skew import Skew
from decodekit_processors.temperature import Temperature
from decodekit_processors.top_a import TopA
from decodekit_processors.top_k import TopK
from decodekit_processors.top_p import TopP
from decodekit_processors.typical_p import TypicalP
from hypothesis import given
from hypothesis import strategies as st

V = 5_000


class Stream:
    def __init__(self, slot):
        self.seed, self.lane, self.slot = slot, 0, slot


@attrs.frozen
class EveryOther(Processor):
    """What a researcher writes: no place, no short form."""

    NAME: ClassVar[str] = "every_other"

    def __call__(self, logits, history):
        odd = torch.arange(logits.shape[-1]) % 2 == 1
        return torch.where(odd, logits - 0.5, logits)


@attrs.frozen
class Revive(Processor):
    NAME: ClassVar[str] = "revive"
    LAWS: ClassVar[Laws] = Laws(may_revive=True)

    def __call__(self, logits, history):
        return logits.clamp(min=-20)


CHAINS = [
    [Temperature(0.8), TopK(50), TopP(0.95)],
    [Temperature(0.8), TopP(0.95)],
    [TopP(0.999), Temperature(1.5)],
    [Temperature(1.3), MinP(0.05)],
    [MinP(0.1, 5), TopK(3)],
    [RepetitionPenalty(1.3), TopK(20), RepetitionPenalty(1.1), MinP(0.2)],
    [EveryOther(), TopK(40), EveryOther(), TopP(0.9), EveryOther()],
    [TopK(40), Revive(), Temperature(0.5), TopP(0.9)],
    [EpsilonCutoff(1e-3), EtaCutoff(1e-3)],
    [TypicalP(0.9), TopK(5)],
    [Quadratic(0.3), TopA(0.2), PLess()],
    [TopK(30), TypicalP(0.8), Skew(0.5)],
    [TopK(60), MirostatV2(3.0)],
    [MinP(0.02), AdaptiveP(0.3)],
    [EveryOther(), Temperature(2.0)],
    [TopK(4_999), TopP(0.5)],
    [],
]


def rows(seed, scale, tied):
    x = torch.randn(3, V, generator=torch.Generator().manual_seed(seed)) * scale
    x[1, V // 2 :] = -torch.inf
    x[2, 7:] = -torch.inf
    return x.bfloat16().float() if tied else x


HISTORY = History.of([[1, 2, 3], [4], [5, 6]], [[9], [], [1]])


@pytest.mark.parametrize("processors", CHAINS, ids=lambda chain: str(Chain(chain)))
@given(st.integers(0, 999), st.sampled_from([0.5, 2.0, 4.0, 30.0]), st.booleans())
def test_the_short_way_keeps_the_same_tokens_with_the_same_probabilities(processors, seed, scale, tied):
    chain, x = Chain(processors).bind(CallContext(vocab_size=V)), rows(seed, scale, tied)
    states = [chain.init([1])] * 3
    whole, memories = chain.apply(x, HISTORY, states)
    short, short_memories = chain.run(x, HISTORY, states)
    assert torch.equal(whole.isneginf(), short.dense.isneginf())
    torch.testing.assert_close(whole.log_softmax(-1), short.dense.log_softmax(-1), atol=1e-5, rtol=1e-5)
    token = int(whole[0].argmax())
    assert chain.advance(states[0], token, memories[0]) == pytest.approx(
        chain.advance(states[0], token, short_memories[0])
    )
    assert torch.equal(short.argmax(), whole.argmax(-1))
    picked = list(short.logprobs([0, 1, 2], [token] * 3))
    assert picked == pytest.approx(whole.log_softmax(-1)[:, token].tolist(), abs=1e-5)


@pytest.mark.parametrize("processors", CHAINS, ids=lambda chain: str(Chain(chain)))
@pytest.mark.parametrize("noise", [SeededNoise(), GlobalNoise(3)], ids=["seeded", "global"])
def test_the_draw_is_the_same_on_both_ways(processors, noise):
    chain = Chain(processors).bind(CallContext(vocab_size=V))
    streams, states = [Stream(slot) for slot in range(3)], [chain.init([1])] * 3
    for seed in range(4):
        x, drawn = rows(seed, 3.0, False), []
        whole, short = Scores.of(chain.apply(x, HISTORY, states)[0]), chain.run(x, HISTORY, states)[0]
        for scores in (whole, short):
            torch.manual_seed(seed)
            field = noise.field(streams, [seed] * 3, V, Purpose.TOKEN)
            drawn.append((scores.draw(field).tolist(), torch.get_rng_state().tolist()))
        assert drawn[0] == drawn[1]


def test_a_chain_looks_at_the_largest_where_a_truncation_follows_and_no_sooner():
    chain = [RepetitionPenalty(1.2), Temperature(0.8), TopK(9), EveryOther(), MinP(0.1)]
    assert openings(chain) == [0, 10, 10, 0, 64]
    assert openings([TypicalP(0.9), Temperature(2.0)]) == [0, 0]


@attrs.frozen
class TooShort(TopK):
    """A truncation whose short form keeps one token too few."""

    def cut(self, head: Head) -> Cut:
        return head.best(self.top_k - 1)


@attrs.frozen
class Blind(Processor):
    """A processor that says that it looks at the largest logits alone, and looks at all."""

    NAME: ClassVar[str] = "blind"
    PLACE: ClassVar[Place] = Place(phase=Phase.SHAPE, scope=Scope.HEAD)
    strength: float = param(0.5, range="[0.1, 1]", help="A strength.")

    def __call__(self, logits, history):
        return logits * self.strength / logits.isfinite().sum(dim=-1, keepdim=True)


@attrs.frozen
class ById(Blind):
    PLACE: ClassVar[Place] = Place(scope=Scope.SUPPORT)

    def __call__(self, logits, history):
        return logits - self.strength * torch.arange(logits.shape[-1])


@pytest.mark.parametrize(
    ("cls", "title"),
    [
        (TooShort, "P33 short chain"),
        (TooShort, "P34 short form"),
        (Blind, "P35 scope"),
        (ById, "P35 scope"),
    ],
)
def test_the_kit_refuses_a_false_short_form(cls, title):
    examples = [{"top_k": 2}, {"top_k": 3}] if cls is TooShort else []
    with pytest.raises(ConformanceError, match=title):
        dict(processor_checks(cls, examples=examples, profile="default"))[title]()


@pytest.mark.parametrize("noise", [SeededNoise(), GlobalNoise(3)], ids=["seeded", "global"])
def test_rows_that_are_cut_and_rows_that_are_not_draw_from_one_field(noise):
    streams, x = [Stream(slot) for slot in range(3)], rows(5, 3.0, False)
    cut, whole = Chain([TopK(4)]), Chain([Temperature(0.9)])
    parts = whole.run(x[[1]], HISTORY.select([1]), [()])[0].renamed([1])
    parts += cut.run(x[[0, 2]], HISTORY.select([0, 2]), [(), ()])[0].renamed([0, 2])
    mixed = Scores.joined(list(reversed(parts)), V)
    assert torch.equal(mixed.dense[0].isneginf(), cut.apply(x, HISTORY, [()] * 3)[0][0].isneginf())
    for seed in range(3):
        drawn = []
        for scores in (mixed, Scores.of(mixed.dense)):
            torch.manual_seed(seed)
            drawn.append(scores.draw(noise.field(streams, [seed] * 3, V, Purpose.TOKEN)).tolist())
        assert drawn[0] == drawn[1]
    again = mixed.select([2, 0, 0, 1])
    assert torch.equal(again.dense, mixed.dense[[2, 0, 0, 1]])
    assert torch.equal(again.row(3), mixed.dense[1])


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lambda logits, history: logits[:, :5], r"shape \[2, 5\]"),
        (lambda logits, history: None, "a NoneType"),
        (lambda logits, history: logits.numpy(), "a ndarray"),
    ],
)
@pytest.mark.parametrize("before", [(), (TopK(4),)], ids=["whole", "cut"])
def test_a_processor_that_gives_no_logits_is_named(wrong, found, before):
    class Wrong(Processor):
        NAME = "wrong"

        def __call__(self, logits, history):
            return wrong(logits, history)

    history = History.of([[1], [2]])
    with pytest.raises(PluginError, match=f"processor wrong gave {found} for logits"):
        Chain([*before, Wrong()]).run(torch.randn(2, 64), history, [(), ()])[0].dense  # noqa: B018 - computed now

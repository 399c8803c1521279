"""What the kit makes of instances, examples, contexts and states."""

import attrs
import pytest
import torch
from decodekit import CallContext, Laws, ParameterError, Processor, StatefulProcessor, param
from decodekit.testing import (
    ConformanceError,
    Outcome,
    check_processor,
    processor_case,
    processor_checks,
    replay,
)
from decodekit.testing.processor_subject import states_of


@attrs.frozen
class OnlyTwo(Processor):
    NAME = "only_two"
    k: int = param(2, range="[1, inf)", help="")

    def __call__(self, logits, history):
        assert self.k == 2
        return logits


@attrs.frozen
class Pick(Processor):
    NAME = "pick"
    ids: tuple[int, ...] = param(help="")

    def __call__(self, logits, history):
        assert self.ids in ((1,), (0, 1))
        return logits


def test_an_instance_is_checked_with_its_own_parameters():
    dict(processor_checks(OnlyTwo(2)))["P1 shape dtype and device"]()
    with pytest.raises(ConformanceError, match=r"it raised AssertionError(.|\n)*OnlyTwo\(k=3\)"):
        dict(processor_checks(OnlyTwo(3)))["P1 shape dtype and device"]()


def test_examples_stand_in_for_ranges():
    check = "P8 no resurrection"
    dict(processor_checks(Pick, examples=[{"ids": (1,)}, {"ids": (0, 1)}]))[check]()
    with pytest.raises(ParameterError, match=r"needs values of ids.*pass examples=\[\{'ids': \.\.\.\}\]"):
        dict(processor_checks(Pick))[check]()


def test_the_context_of_the_call_is_bound():
    @attrs.frozen
    class Bound(Processor):
        NAME = "bound"
        _vocab_size: int = 0

        def bind(self, context: CallContext):
            return attrs.evolve(self, vocab_size=context.vocab_size)

        def __call__(self, logits, history):
            assert logits.shape[-1] == self._vocab_size
            return logits

    assert not check_processor(Bound, profile="fast").of(Outcome.FAILED)


@attrs.frozen
class Cooldown(StatefulProcessor[tuple[int, ...]]):
    """Lowers the tokens that were generated, by one each time."""

    NAME = "cooldown"
    LAWS = Laws(shift_invariant=True, permutation_equivariant=True)

    def init(self, prompt):
        return ()

    def advance(self, state, token, logits):
        assert token == logits.argmax() or logits[token] >= logits.max() - len(state) - 1
        return (*state, token)

    def process(self, logits, history, states):
        out = logits.clone()
        for row, state in zip(out, states, strict=True):
            for token in state:
                row[token] -= 1
        return out


@attrs.frozen
class Steady(StatefulProcessor[bool]):
    """Forbids the least likely token once the most likely one of a step did not lead by exactly 1."""

    NAME = "steady"

    def init(self, prompt):
        return True

    def advance(self, state, token, logits):
        first, second = (*logits.sort(descending=True).values.tolist(), 0.0)[:2]
        return state and (first - second == 1 or second == -float("inf"))

    def process(self, logits, history, states):
        least = logits == logits.min(-1, keepdim=True).values
        unsteady = ~torch.tensor(states)[:, None] & (logits < logits.amax(-1, keepdim=True))
        return logits.masked_fill(least & unsteady, -float("inf"))


def test_what_happened_before_is_the_same_in_every_dtype():
    """The kit makes a past of the logits plus 1, which half precision rounds: the state is not to blame."""
    found = []
    for logits in ([2.3125, 1.5234375, -1.0], [300.0, 299.0, 3.0], [0.5, 0.25, 0.125]):
        case = processor_case(
            Steady(), logits=[logits], dtype="float64", tokens=[[0, 1, 1]], pads=[0], prompt_lengths=[1]
        )
        found += states_of(Steady(), case.logits.bfloat16(), case.history)
        replay("P31 half precision", Steady(), [case])
    assert {*found} == {True, False}  # the bfloat16 past of one of them is another


@attrs.frozen
class SharedList(Cooldown):
    def init(self, prompt):
        return []

    def advance(self, state, token, logits):
        state.append(token)
        return state


def test_a_right_stateful_processor_passes_all():
    def cooldown_oracle(row):
        generated = row.tokens[row.prompt_length :]
        return [x - generated.count(token) for token, x in enumerate(row.logits)]

    report = check_processor(Cooldown, oracle=cooldown_oracle, profile="fast")
    assert not report.of(Outcome.FAILED)
    assert {item.id for item in report.of(Outcome.PASSED)} >= {"P9", "P10", "P21", "P22", "P23", "P24", "P26"}


def test_a_state_that_is_changed_in_place_is_caught():
    with pytest.raises(ConformanceError, match="P23 state is a value: broken: "):
        dict(processor_checks(SharedList))["P23 state is a value"]()

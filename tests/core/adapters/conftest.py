"""Processors with and without a state, and what they give when the core calls them."""

from typing import ClassVar

import attrs
import pytest
import torch
from decodekit import History, Laws, Processor, StatefulProcessor, param


@attrs.frozen
class Damp(Processor):
    """Lower every token by ``amount`` for each time that it was generated, and half of it in the prompt."""

    NAME: ClassVar[str] = "damp"
    LAWS: ClassVar[Laws] = Laws(shift_invariant=True)
    amount: float = param(1.5, range="[0, 9]", help="How much.")

    def __call__(self, logits, history):
        weights = (
            history.mask.to(logits) * self.amount / 2 + history.generated_mask.to(logits) * self.amount / 2
        )
        return logits - torch.zeros_like(logits).scatter_add(1, history.tokens, weights)


@attrs.frozen
class Tire(StatefulProcessor[float]):
    """Flatten more, the more surprising the chosen tokens were."""

    NAME: ClassVar[str] = "tire"
    LAWS: ClassVar[Laws] = Laws(keeps_argmax=True)
    pace: float = param(1.0, range="[0, 9]", help="How fast.")

    def init(self, prompt):
        return 0.1 * len(prompt)

    def advance(self, state, token, logits):
        return state + self.pace * min(-float(logits.log_softmax(-1)[token]), 3.0)

    def process(self, logits, history, states):
        return logits / (1 + torch.tensor(states, dtype=logits.dtype))[:, None]


def walk(processor, prompt, tokens, logits):
    """What a processor gives at each of the steps of one row, as the core would call it."""
    outs, state = [], processor.init(prompt) if isinstance(processor, StatefulProcessor) else None
    for step, x in enumerate(logits):
        history = History.of([prompt], [tokens[:step]])
        if state is None:
            outs.append(processor(x[None], history)[0])
            continue
        outs.append(processor.process(x[None], history, [state])[0])
        if step < len(tokens):
            state = processor.advance(state, tokens[step], processor.memory(x[None], outs[-1][None])[0])
    return torch.stack(outs)


@pytest.fixture(params=[Damp(), Tire()], ids=["stateless", "stateful"])
def processor(request):
    return request.param


@pytest.fixture
def row():
    """A prompt, what was generated after it, and the logits of each step (one more)."""
    generator = torch.Generator().manual_seed(3)
    return [4, 1], [2, 2, 5, 1], torch.randn(5, 6, generator=generator) * 3


@pytest.fixture
def expected(processor, row):
    return walk(processor, *row)

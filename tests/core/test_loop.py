"""The loop: what goes wrong in it is told with the name of the strategy, and what comes too late."""

from typing import ClassVar

import decodekit as dk
import pytest
import torch
from decodekit.model_inputs import ModelInputs
from decodekit.testing.models import MarkovModel


class Plain(dk.Strategy):
    NAME: ClassVar[str] = "plain"

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(p.argmax(), p)


@pytest.mark.parametrize("part", ["start", "step", "finish"])
def test_an_error_of_a_strategy_comes_with_its_name(part):
    def fail(self, batch):
        raise KeyError(part)

    broken = type("Broken", (Plain,), {"NAME": "broken", part: fail})
    with pytest.raises(KeyError, match=part) as raised:
        dk.generate(MarkovModel.random(5, order=1), torch.tensor([[1]]), max_new_tokens=2, strategy=broken)
    assert raised.value.__notes__ == ["raised under the strategy 'broken'"]


@pytest.mark.parametrize("part", ["start", "step"])
def test_a_session_with_inputs_that_comes_after_the_prompts_is_refused(part):
    model = MarkovModel.random(5, order=1)

    def late(self, batch):
        batch.open("draft", model, ModelInputs())

    strategy = type("Late", (Plain,), {"NAME": "late", part: late})
    with pytest.raises(dk.PluginError, match=r"'draft' has inputs .* name its model in Strategy\.models"):
        dk.generate(model, torch.tensor([[1]]), max_new_tokens=2, strategy=strategy)

"""The loop: what goes wrong in it is told with the name of the strategy."""

from typing import ClassVar

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import MarkovModel


@pytest.mark.parametrize("part", ["start", "step", "finish"])
def test_an_error_of_a_strategy_comes_with_its_name(part):
    class Plain(dk.Strategy):
        NAME: ClassVar[str] = "plain"

        def step(self, batch):
            p = batch.dist(batch.logits())
            batch.commit(p.argmax(), p)

    def fail(self, batch):
        raise KeyError(part)

    broken = type("Broken", (Plain,), {"NAME": "broken", part: fail})
    with pytest.raises(KeyError, match=part) as raised:
        dk.generate(MarkovModel.random(5, order=1), torch.tensor([[1]]), max_new_tokens=2, strategy=broken)
    assert raised.value.__notes__ == ["raised under the strategy 'broken'"]

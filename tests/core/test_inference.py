"""Steps run in torch's inference mode where nobody can tell, and the model keeps ordinary tensors."""

from typing import ClassVar

import decodekit as dk
import pytest
import torch
from decodekit import Processor, Strategy
from decodekit.testing.models import tiny_llama
from transformers import DynamicCache

IDS = torch.tensor([[3, 4, 5], [6, 7, 8]])


class Spy(Processor):
    """Remembers how it was called."""

    NAME: ClassVar[str] = "spy"
    seen: ClassVar[list[bool]] = []

    def __call__(self, logits, history):
        self.seen.append(torch.is_inference_mode_enabled())
        return logits + 0


@pytest.fixture
def model():
    Spy.seen.clear()
    return tiny_llama(20, dtype=torch.float32)


def generate(model, **more):
    return dk.generate(model, IDS, max_new_tokens=4, pad_token_id=0, eos_token_id=None, **more)


def test_the_steps_of_a_plain_call_run_in_inference_mode(model):
    ids = generate(model, processors=[Spy()])
    assert Spy.seen == [True] * 4
    assert not ids.is_inference()


class WithGradients(Strategy):
    NAME: ClassVar[str] = "with_gradients"
    GRADIENTS: ClassVar[bool] = True

    def step(self, batch):
        p = batch.dist(batch.logits())
        batch.commit(p.argmax(), p)


@pytest.mark.parametrize(
    "more",
    [
        {"return_dict_in_generate": True, "output_scores": True},
        {"past_key_values": "cache"},
        {"stopping_criteria": [lambda ids, scores: False]},
        {"strategy": WithGradients()},
        {"autocast": True},
        {"hook": True},
        {"train": True},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_call_whose_tensors_get_out_does_not(model, more):
    more = (
        {**more, "past_key_values": DynamicCache(config=model.config)} if "past_key_values" in more else more
    )
    model.train("train" in more)
    if "hook" in more:
        model.model.layers[1].register_forward_hook(lambda *given: None)
    with torch.autocast("cpu", enabled="autocast" in more):
        rest = {name: value for name, value in more.items() if name not in ("autocast", "hook", "train")}
        generate(model, processors=[Spy()], **rest)
    assert Spy.seen == [False] * 4


@pytest.mark.parametrize("fails", [False, True])
def test_what_modules_make_for_themselves_is_ordinary_afterwards(model, monkeypatch, fails):
    rotary = model.model.rotary_emb
    plain = rotary.forward

    def remembering(x, position_ids):
        rotary.register_buffer("inv_freq", rotary.inv_freq * 1, persistent=False)
        rotary.last = position_ids + 1
        if fails and torch.is_inference_mode_enabled():
            raise KeyboardInterrupt
        return plain(x, position_ids)

    monkeypatch.setattr(rotary, "forward", remembering)
    if fails:
        with pytest.raises(KeyboardInterrupt):
            generate(model)
    else:
        generate(model)
    assert not rotary.inv_freq.is_inference()
    assert not rotary.last.is_inference()
    model(IDS).logits.sum().backward()

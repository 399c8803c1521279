"""Against the published interfaces of vLLM 0.32: its base classes, batch updates and contexts."""

import abc
import enum
import sys
import types
from types import SimpleNamespace

import decodekit as dk
import pytest
import torch
from decodekit.adapters import to_vllm_v1, to_vllm_v2

from tests.core.adapters.conftest import Damp, Tire, walk


class Move(enum.Enum):
    UNIDIRECTIONAL = enum.auto()
    SWAP = enum.auto()


class V1Base(abc.ABC):
    @classmethod
    def validate_params(cls, sampling_params):
        return None

    @abc.abstractmethod
    def __init__(self, vllm_config, device, is_pin_memory): ...
    @abc.abstractmethod
    def apply(self, logits): ...
    @abc.abstractmethod
    def is_argmax_invariant(self): ...
    @abc.abstractmethod
    def update_state(self, batch_update): ...


class V2Base(abc.ABC):
    @abc.abstractmethod
    def apply(self, logits, ctx): ...


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    """The two modules, with what a logits processor imports from them."""
    names = ["vllm", "vllm.v1", "vllm.v1.sample", "vllm.v1.sample.logits_processor", "vllm.v1.worker"]
    names += ["vllm.v1.worker.gpu", "vllm.v1.worker.gpu.sample", "vllm.v1.worker.gpu.sample.logits_processor"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[names[3]].LogitsProcessor = V1Base
    sys.modules[names[3]].MoveDirectionality = Move
    sys.modules[names[-1]].LogitsProcessor = V2Base


def params(**extra):
    return SimpleNamespace(extra_args=extra or None, max_tokens=9, stop_token_ids=[2])


def update(size, removed=(), added=(), moved=()):
    return SimpleNamespace(batch_size=size, removed=removed, added=added, moved=moved)


def test_v1_follows_requests_through_a_persistent_batch(processor, row, expected):
    prompt, tokens, logits = row
    made = to_vllm_v1(type(processor))(None, torch.device("cpu"), False)
    output, asked = [], params(**{processor.NAME: True})
    made.update_state(update(2, added=[(0, params(), [3], []), (1, asked, prompt, output)]))
    place = 1
    for step, x in enumerate(logits):
        if step == 1:
            made.update_state(update(2, removed=[0], moved=[(1, 0, Move.UNIDIRECTIONAL)]))
            place = 0
        if step == 2:
            made.update_state(update(2, added=[(1, asked, [5], [])], moved=[(0, 1, Move.SWAP)]))
            place = 1
        if step == 3:
            made.update_state(None)
        batch = torch.stack([logits[0], logits[0]])
        batch[place] = x
        out = made.apply(batch.clone())
        torch.testing.assert_close(out[place], expected[step], rtol=0, atol=0)
        if step < 2:
            assert torch.equal(out[1 - place], batch[1 - place])
        output.extend(tokens[step : step + 1])


def test_v1_says_what_the_processor_declares():
    built = [to_vllm_v1(cls)(None, torch.device("cpu"), False) for cls in (Damp, Tire)]
    assert [item.is_argmax_invariant() for item in built] == [False, True]
    assert [type(item).__name__ for item in built] == ["DampVllmV1", "TireVllmV1"]


class Buffer:
    def __init__(self, values):
        self.gpu = torch.tensor(values)


def test_v2_gives_each_drafted_row_its_own_history(processor, row):
    prompt, tokens, logits = row
    states = SimpleNamespace(
        all_token_ids=Buffer([[0] * 8, [*prompt, *tokens[:1], 0, 0, 0, 0, 0]]),
        total_len=Buffer([1, 3]),
        prompt_len=Buffer([1, 2]),
    )
    made = to_vllm_v2(type(processor))(None, states)
    assert made.add_request(0, params()) is False
    assert made.add_request(1, params(**{processor.NAME: {}})) is True
    states.total_len.gpu[1] = 2  # the first token is still to come
    first = SimpleNamespace(
        expanded_idx_mapping=torch.tensor([1]),
        expanded_local_pos=torch.tensor([0]),
        input_ids=torch.tensor(prompt[-1:]),
    )
    outs = [made.apply(logits[:1].clone(), first)[0]]
    states.total_len.gpu[1] = 3
    drafted = SimpleNamespace(  # rows: of the other request, then a request's three, in any order
        expanded_idx_mapping=torch.tensor([1, 0, 1, 1]),
        expanded_local_pos=torch.tensor([1, 0, 0, 2]),
        input_ids=torch.tensor([tokens[1], 4, tokens[0], tokens[2]]),
    )
    batch = torch.stack([logits[2], logits[0], logits[1], logits[3]])
    out = made.apply(batch.clone(), drafted)
    assert torch.equal(out[1], batch[1])
    outs += [out[2], out[0], out[3]]
    expected = walk(processor, prompt, tokens, logits)[:4]
    torch.testing.assert_close(torch.stack(outs), expected, rtol=0, atol=0)


@pytest.mark.parametrize("make", [to_vllm_v1, to_vllm_v2])
def test_parameters_come_with_a_request_and_are_checked_at_its_admission(make):
    made = make(Damp)
    made.validate_params(params())
    made.validate_params(params(damp={"amount": 2}))
    with pytest.raises(ValueError, match=r"amount=11.0 is not allowed: amount must be float in \[0, 9\]"):
        made.validate_params(params(damp={"amount": 11}))
    with pytest.raises(ValueError, match="must be True or"):
        made.validate_params(params(damp="yes"))


@pytest.mark.parametrize("make", [to_vllm_v1, to_vllm_v2])
def test_an_instance_or_a_missing_interface_is_refused(make, monkeypatch):
    with pytest.raises(dk.ParameterError, match="give the name or the class"):
        make(Damp())
    assert make("top_k").__name__.startswith("TopKVllm")
    for name in [name for name in sys.modules if name.startswith("vllm")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(dk.MissingLibraryError, match=r"needs vllm\.v1\.\S+ of vLLM, which is not here"):
        make(Damp)

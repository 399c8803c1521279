"""A call that can't work, given to `decodekit.generate` and to ``model.generate``."""

import contextlib
import copy
import functools
import logging
import warnings
from typing import Any

import attrs
import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama
from torch.nn.modules.module import register_module_forward_pre_hook

from tests.parity.architectures import inputs_of, model_of

VOCAB = 32
MODEL = tiny_llama(VOCAB, dtype=torch.float32)
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
ONE = IDS[:1]
ACCEPTS = None


@attrs.frozen(kw_only=True)
class Case:
    """A call and what becomes of it.

    ``raises`` is ours, ``match`` its message. ``theirs`` is transformers' error, or what it does instead:
    ACCEPTS, or the beginning of a warning. ``late`` is what can only be known from an answer of the caller's.
    """

    arguments: dict[str, Any] = attrs.field(factory=dict)
    raises: Any = dk.ParameterError
    match: str = ""
    theirs: Any = ValueError
    model: Any = MODEL
    late: bool = False


@attrs.frozen
class Outcome:
    result: Any
    error: Exception | None
    ran: bool
    said: list[str]


def tried(generate, case):
    """Run it; whether any module ran, and all that was warned of."""
    ran, said = [], []
    arguments = {"input_ids": IDS, "max_new_tokens": 3, **case.arguments}
    arguments = {name: value for name, value in arguments.items() if value is not LEFT_OUT}
    handle = register_module_forward_pre_hook(lambda *_: ran.append(1))
    result = error = None
    with _listening(said), warnings.catch_warnings(record=True) as warned, torch.random.fork_rng():
        warnings.simplefilter("always")
        torch.manual_seed(0)
        try:
            result = generate(case.model, **arguments)
        except Exception as raised:  # whatever it is, the test compares it
            error = raised
        finally:
            handle.remove()
    return Outcome(result, error, bool(ran), said + [str(warning.message) for warning in warned])


LEFT_OUT = object()


@contextlib.contextmanager
def _listening(said):
    """Hear what transformers logs; what it says once it may say again."""

    class Handler(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    logging.Logger.warning_once.cache_clear()
    handler, logger = Handler(), logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def theirs(model, **arguments):
    return model.generate(**arguments)


def assert_refused(case):
    """Ours is refused by name before any module runs, and theirs is what the case says."""
    ours = tried(dk.generate, case)
    assert isinstance(ours.error, case.raises), ours
    with pytest.raises(case.raises, match=case.match):
        raise ours.error
    assert isinstance(ours.error, ValueError | LookupError | ImportError)
    assert case.late or not ours.ran
    assert_theirs(case)


def assert_theirs(case):
    found = tried(theirs, case)
    if case.theirs is ACCEPTS or isinstance(case.theirs, str):
        assert found.error is None, found.error
        assert case.theirs is ACCEPTS or any(case.theirs in text for text in found.said), found.said
    else:
        assert isinstance(found.error, case.theirs), found


def assert_accepted(case):
    """Ours does what was asked; theirs is what the case says. Where both do it, the tokens are the same."""
    ours, other = tried(dk.generate, case), tried(theirs, case)
    assert ours.error is None, ours.error
    assert_theirs(case)
    if isinstance(case.theirs, str):
        assert any(case.theirs in text for text in ours.said), ours.said
    if other.error is None:
        assert torch.equal(ours.result, other.result)


def changed(model, **fields):
    """A copy of the model with other fields of its generation configuration."""
    model = copy.deepcopy(model)
    for name, value in fields.items():
        setattr(model.generation_config, name, value)
    return model


def limited(kind):
    """A model that only does one mode of transformers."""
    cls = type(MODEL)
    return _limited(cls, kind)(MODEL.config)


@functools.cache
def _limited(cls, kind):
    return type("Limited", (cls,), {"_supported_generation_modes": [kind]})


class Quiet:
    def put(self, value):
        pass

    def end(self):
        pass


def of(name, **arguments):
    """A call of another model."""
    return {"model": model_of(name), "arguments": {**inputs_of(name), **arguments}}

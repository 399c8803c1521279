"""What a class must fulfil is said when it is registered, with what to write instead."""

import attrs
import pytest
from decodekit import (
    Drafter,
    PluginError,
    Processor,
    QuantBackend,
    StatefulProcessor,
    Strategy,
    param,
    params_of,
)
from decodekit.contract import check_class, from_function, kind_of


def processor(**body):
    """A processor class that fulfils the contract, apart from ``body``."""
    body = {"NAME": "fine", "__call__": lambda self, logits, history: logits, **body}
    return type("Fine", (Processor,), body)


def field(default, hint=float, **spec):
    return {"x": param(default, help="X.", **spec), "__annotations__": {"x": hint}}


@attrs.frozen
class Stepper(Strategy):
    NAME = "stepper"

    def step(self, batch):
        batch.commit()


@attrs.frozen
class Guess(Drafter):
    NAME = "guess"

    def draft(self, batch, lengths, pick):
        return [[] for _ in lengths]


@attrs.frozen
class Backend(QuantBackend):
    NAME = "bnb-nf4.v2"


@pytest.mark.parametrize(
    ("kind", "cls"),
    [
        ("processors", processor()),
        ("processors", attrs.frozen(processor(**field(0.5, range="[0, 1]")))),
        ("processors", attrs.frozen(processor(**field(attrs.NOTHING, range="[0, 1]")))),
        ("strategies", Stepper),
        ("drafters", Guess),
        ("quant_backends", Backend),
    ],
)
def test_a_class_that_fulfils_it_is_returned(kind, cls):
    assert check_class(kind, cls) is cls
    assert kind_of(cls) == kind


def test_what_is_no_plugin_has_no_kind():
    assert kind_of(int) is None


BAD = {
    "no name": (processor(NAME=""), 'has no NAME: write NAME = "my_name" in the class'),
    "bad name": (processor(NAME="my name"), "has NAME='my name': a name is made of"),
    "name of another type": (processor(NAME=3), "has NAME=3"),
    "version": (processor(API_VERSION=99), "is written for API_VERSION=99 and this decodekit has 1"),
    "no call": (processor(__call__=Processor.__call__), "must define __call__ (see decodekit.Processor)"),
    "no advance": (
        type("Half", (StatefulProcessor,), {"NAME": "half", "init": lambda self, prompt: 0}),
        "must define advance, process (see decodekit.StatefulProcessor)",
    ),
    "own init": (processor(__init__=lambda self: None), "has an __init__: declare its parameters as fields"),
    "not decorated": (processor(**field(1.0)), "is not decorated: write @attrs.frozen above the class"),
    "not frozen": (attrs.define(processor(**field(1.0))), "write @attrs.frozen instead of @attrs.define"),
    "default": (
        attrs.frozen(processor(**field(7.0, range="[0, 1]"))),
        "has a default that it refuses: x=7.0 is not allowed: x must be float in [0, 1]. X.",
    ),
    "hint": (
        attrs.frozen(processor(**field(7.0, "Nowhere"))),
        "has a type hint that can't be read: name",
    ),
    "taken name": (
        attrs.frozen(processor(bind=param(1, help=""), __annotations__={"bind": int})),
        "has a parameter 'bind', which is a name of decodekit.Processor",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_class_that_does_not_is_refused_with_what_to_write(case):
    cls, problem = BAD[case]
    with pytest.raises(PluginError) as error:
        check_class("processors", cls)
    assert str(error.value).startswith(f"{cls.__module__}.{cls.__qualname__} ")
    assert problem in str(error.value)


def test_a_strategy_needs_a_step():
    with pytest.raises(PluginError, match=r"must define step \(see decodekit\.Strategy\)"):
        check_class("strategies", type("Still", (Strategy,), {"NAME": "still"}))


@pytest.mark.parametrize("thing", [3, "top_k", Stepper, Processor.__call__])
def test_what_is_no_class_of_the_kind_is_refused(thing):
    with pytest.raises(PluginError, match=r"is not a processor: it must be a subclass of"):
        check_class("processors", thing)


MOST = param(9.0, range="[0, 9]", help="At most.")


def shave(logits, history, by: float = 1, *, times=2, most=MOST):
    """Shave the logits."""
    return logits - min(by * times, most)


def test_a_function_becomes_a_class_of_its_name_with_its_parameters():
    cls = check_class("processors", from_function(shave))
    assert (cls.NAME, cls.__name__, cls.__doc__) == ("shave", "shave", "Shave the logits.")
    assert cls.__module__ == shave.__module__
    assert {name: info.default for name, info in params_of(cls).items()} == {
        "by": 1,
        "times": 2,
        "most": 9.0,
    }
    assert cls(by=2.5)(10.0, None) == 5.0
    assert cls(by=20)(10.0, None) == 1.0
    assert cls() == cls(1.0, 2, 9.0)


@pytest.mark.parametrize(("name", "value"), [("by", "x"), ("times", 1.5), ("most", 10)])
def test_the_parameters_of_a_function_are_checked(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        from_function(shave)(**{name: value})


@pytest.mark.parametrize(
    "function",
    [
        lambda: 0,
        lambda logits: logits,
        lambda logits, history, k: logits,
        lambda logits, history, *more: logits,
        lambda logits, history, **more: logits,
        lambda logits, history, k=1, /: logits,
        lambda logits, *, history: logits,
    ],
)
def test_a_function_of_another_form_is_refused(function):
    with pytest.raises(PluginError, match=r"it must take \(logits, history\) and, after them, only"):
        from_function(function)


def test_a_hint_that_cannot_be_read_is_named():
    def lost(logits, history, k: "Nowhere" = 1):  # noqa: F821  # the point of the test
        return logits

    with pytest.raises(PluginError, match="lost has a type hint that can't be read: name 'Nowhere'"):
        from_function(lost)


def test_a_required_parameter_comes_first():
    required = param(help="How much.")

    def late(logits, history, k: int = 1, p: float = required):
        return logits * k * p

    with pytest.raises(PluginError, match="late can't become a processor"):
        from_function(late)

"""What the base class of processors does for its subclasses."""

import attrs
import pytest
from decodekit import Processor, StatefulProcessor, param


@attrs.frozen
class TopK(Processor):
    """Two parameters, one with a neutral value."""

    NAME = "top_k"
    top_k: int = param(0, range="[0, inf)", neutral=0, help="How many.")
    keep: int = param(1, range="[1, inf)", help="How many at least.")


@attrs.frozen
class Blend(Processor):
    """Two neutral values, none of which is enough alone, and a parameter without a default."""

    NAME = "blend"
    size: int = param(help="How many.")
    low: float = param(0.0, neutral=0.0, help="From.")
    high: float = param(1.0, neutral=1.0, help="To.")


@attrs.frozen
class Plain(Processor):
    """No parameters."""

    NAME = "plain"


@pytest.mark.parametrize(
    ("processor", "text"),
    [
        (TopK(50), "top_k=50"),
        (TopK(0), "top_k=0"),
        (TopK(50, keep=2), "top_k(top_k=50, keep=2)"),
        (TopK(keep=2), "top_k(top_k=0, keep=2)"),
        (Blend(3), "blend(size=3)"),
        (Blend(3, high=0.30000000000000004), "blend(size=3, high=0.3)"),
        (Plain(), "plain"),
    ],
)
def test_a_processor_says_in_short_what_it_is(processor, text):
    assert processor.describe() == text


@pytest.mark.parametrize(
    ("processor", "neutral"),
    [
        (TopK(0), True),
        (TopK(0, keep=2), True),
        (TopK(1), False),
        (Blend(3), True),
        (Blend(3, low=0.1), False),
        (Blend(3, high=0.9), False),
        (Plain(), False),
    ],
)
def test_it_is_neutral_when_every_neutral_value_holds(processor, neutral):
    assert processor.is_neutral is neutral


def test_what_a_subclass_must_define_is_named():
    with pytest.raises(TypeError, match="Plain must define __call__"):
        Plain()(None, None)
    with pytest.raises(TypeError, match="must define init"):
        StatefulProcessor().init([])
    with pytest.raises(TypeError, match="must define advance"):
        StatefulProcessor().advance(None, 0, None)
    with pytest.raises(TypeError, match="must define process"):
        StatefulProcessor().process(None, None, [])


def test_a_processor_that_needs_nothing_of_the_call_is_bound_to_itself():
    plain = Plain()
    assert plain.bind(None) is plain

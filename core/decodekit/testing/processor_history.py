"""P22 to P29, P31: what a processor may do with the history, the padding and the precision."""

import copy
import time

import attrs
import torch
from hypothesis import strategies as st

from decodekit.history import History
from decodekit.processor import StatefulProcessor
from decodekit.testing import generators
from decodekit.testing.check import Draw, check
from decodekit.testing.processor_laws import same_law
from decodekit.testing.processor_subject import Case, ProcessorSubject, expect, states_of

__all__ = ["CHECKS"]

_LONG_HISTORY = 4_096
_SECONDS = 1.0
"""What one call may take on a history of 4,096 tokens; the built-in processors need a thousandth."""


@check("P22")
def no_memory(subject: ProcessorSubject, draw: Draw) -> None:
    """A call gives the same before and after calls with other logits and histories."""
    case, other = draw(subject.cases()), draw(subject.cases())
    first = case.run()
    other.run(processor=case.processor)
    again = case.run()
    expect(torch.equal(first, again), case, f"first {first.tolist()}, after another call {again.tolist()}")


@check("P23", skip=lambda subject: None if subject.stateful else "it has no state")
def state_is_a_value(subject: ProcessorSubject, draw: Draw) -> None:
    """Advancing a state leaves it as it was, twice gives the same, and a deep copy serves as well."""
    case = draw(subject.float64_cases())
    processor, row = case.bound(), case.history.select([0])
    assert isinstance(processor, StatefulProcessor)
    logits = case.logits[:1]
    (state,) = states_of(processor, logits, row)
    before = processor.process(logits, row, [state])
    token = int(before.argmax())
    memory = processor.memory(logits, before)[0].float()
    children = [processor.advance(state, token, memory) for _ in range(2)]
    longer = row.append([[token]])
    first, second = (processor.process(logits, longer, [child]) for child in children)
    after = processor.process(logits, row, [copy.deepcopy(state)])
    expect(torch.equal(before, after), case, f"before advance {before.tolist()}, after it {after.tolist()}")
    expect(
        torch.equal(first, second), case, f"two forks of one state gave {first.tolist()}, {second.tolist()}"
    )


@check("P24")
def fresh_start(subject: ProcessorSubject, draw: Draw) -> None:
    """A processor that has served other rows gives what a new one gives."""
    case, other = draw(subject.cases()), draw(subject.cases())
    new = copy.deepcopy(case.processor)
    other.run(processor=case.processor)
    used, fresh = case.run(), case.run(processor=new)
    expect(torch.equal(used, fresh), case, f"a new one gave {fresh.tolist()}, the used one {used.tolist()}")


@check("P25")
def padding_invariance(subject: ProcessorSubject, draw: Draw) -> None:
    """Padding on the left, of whatever ids, changes nothing."""
    case = draw(subject.cases())
    columns, pad = draw(st.integers(1, 4)), draw(st.integers(0, case.context.vocab_size - 1))
    padded = case.run(history=generators.pad_left(case.history, columns, pad))
    out = case.run()
    message = (
        f"{columns} more columns of padding with token {pad} turned {out.tolist()} into {padded.tolist()}"
    )
    expect(torch.equal(out, padded), case, message)


@check("P27")
def vocabulary_padding(subject: ProcessorSubject, draw: Draw) -> None:
    """More columns of -inf at the end do not change the law of the real tokens, on rows without ties."""
    case = draw(subject.float64_cases(distinct=True))
    _expect_same_in_larger_vocabulary(case, draw(st.integers(1, 9)))


@check("P28")
def ids_beyond_the_logits(subject: ProcessorSubject, draw: Draw) -> None:
    """Token ids of the prompt that have no logit are ignored, on rows without ties."""
    beyond = draw(st.integers(1, 9))
    case = draw(subject.float64_cases(distinct=True, beyond=beyond))
    _expect_same_in_larger_vocabulary(case, beyond)


def _expect_same_in_larger_vocabulary(case: Case, more: int) -> None:
    """On rows without ties, as a sort may break a tie otherwise in a wider row."""
    logits = torch.nn.functional.pad(case.logits, (0, more), value=-torch.inf)
    context = attrs.evolve(case.context, vocab_size=case.context.vocab_size + more)
    out, wide = case.run(), case.run(logits=logits, context=context)
    message = f"it gave {out.tolist()}, and {wide.tolist()} with {more} impossible tokens more"
    expect(same_law(out, wide[:, : out.shape[1]]), case, message)


@check("P29", most_examples=4)
def long_history(subject: ProcessorSubject, draw: Draw) -> None:
    """A call on 4,096 tokens ends within a second, without overflow."""
    case = draw(subject.cases())
    ids = st.integers(0, case.context.vocab_size - 1)
    period = draw(st.lists(ids, min_size=1, max_size=5))
    prompt = (period * _LONG_HISTORY)[:_LONG_HISTORY]
    case = attrs.evolve(case, history=History.of([prompt] * len(case.logits)))
    seconds = []
    for _ in range(2):  # the faster of two, as the machine may be busy
        start = time.perf_counter()
        out = case.run()
        seconds.append(time.perf_counter() - start)
    expect(min(seconds) < _SECONDS, case, f"it took {min(seconds):.2f} s")
    expect(not (out.isnan() | out.isposinf()).any(), case, f"the result is {out.tolist()}")


@check("P31")
def half_precision(subject: ProcessorSubject, draw: Draw) -> None:
    """bfloat16 and float16 logits keep the tokens that they keep in float32."""
    case = draw(subject.float64_cases())
    for dtype in (torch.bfloat16, torch.float16):
        half = attrs.evolve(case, logits=case.logits.to(dtype))
        exact = half.logits.float()
        wanted = half.run(logits=exact)
        if not torch.equal(wanted.isinf(), wanted.to(dtype).isinf()):
            continue  # what overflows is not its fault
        out = half.run(past=exact)  # a past in half precision is another past
        message = f"{out.tolist()}, in float32 {wanted.tolist()}"
        expect(torch.equal(out.isneginf(), wanted.isneginf()), half, message)


CHECKS = (
    no_memory,
    state_is_a_value,
    fresh_start,
    padding_invariance,
    vocabulary_padding,
    ids_beyond_the_logits,
    long_history,
    half_precision,
)

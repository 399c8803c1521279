"""S19 to S22, S34: what a call refuses, what it needs of the process, and what it leaves behind."""

import gc
import random
import weakref
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from hypothesis import strategies as st

from decodekit.errors import CapabilityError
from decodekit.session import Session
from decodekit.testing.check import Draw, check
from decodekit.testing.models import tiny_mamba
from decodekit.testing.strategy_case import Case, around, expect, expect_same
from decodekit.testing.strategy_models import EXACT, KitModel
from decodekit.testing.strategy_subject import StrategySubject
from decodekit.testing.strategy_toys import Interruption, InterruptionError
from decodekit.testing.strategy_traces import counted_forwards, differences, raising_forward, trace

if TYPE_CHECKING:
    from decodekit.batch import Batch

__all__ = ["CHECKS"]


@check("S19", most_examples=25)
def global_randomness(subject: StrategySubject, draw: Draw) -> None:
    """With a seed no global random state is used; without one only torch's is, and it decides."""
    case = draw(subject.cases())
    before = _random_states()
    case.run()
    changed = [name for name, state in _random_states().items() if state != before[name]]
    expect(not changed, case, f"with a seed, the random state of {', '.join(changed)} has changed")
    with torch.random.fork_rng(devices=[]):
        first, used = _run_without_seed(case)
        again, _ = _run_without_seed(case)
    expect_same(case, first, again, "again after torch.manual_seed")
    allowed = {"torch"} if case.strategy.samples else set()
    message = f"without a seed the random state of {used} has changed; it may be that of {allowed or 'none'}"
    expect(used <= allowed, case, message)


def _run_without_seed(case: Case) -> tuple[list[Any], set[str]]:
    torch.manual_seed(5)
    before = _random_states()
    rows = case.run(seed=None)
    return rows, {name for name, state in _random_states().items() if state != before[name]}


def _random_states() -> dict[str, object]:
    return {
        "torch": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy": str(np.random.get_state(legacy=False)),
    }


@check("S20", most_examples=25)
def no_traces(subject: StrategySubject, draw: Draw) -> None:
    """Config, parameters, hooks, train mode and random state are the same afterwards, after an error too."""
    case = draw(subject.cases())
    model = case.model.module.train(draw(st.booleans()))
    ending = draw(st.sampled_from(["success", "an error in a processor", "an error in the model"]))
    after = draw(st.integers(0, 3))
    if ending == "an error in a processor":
        case = attrs.evolve(case, processors=(*case.processors, Interruption(after)))
    before = trace(model)
    try:
        with raising_forward(model, after if ending == "an error in the model" else None):
            case.run()
    except InterruptionError:
        pass
    changed = differences(before, trace(model))
    expect(not changed, case, f"after {ending} (step {after}) there is a change of {', '.join(changed)}")


@check("S20", most_examples=10)
def errors_get_through(subject: StrategySubject, draw: Draw) -> None:
    """An error in a processor reaches the caller."""
    case = draw(subject.cases(EXACT))
    case = attrs.evolve(case, processors=(Interruption(0),))
    try:
        case.run()
    except InterruptionError:
        return
    expect(False, case, "a processor raised an error, and the call ended as if nothing had happened")


@check("S21", most_examples=15)
def cancellation(subject: StrategySubject, draw: Draw) -> None:
    """Closing the stream ends the forward passes and frees all rows."""
    case = draw(subject.cases(("tiny llama", "cache hash")))
    alive: list[weakref.ref[Any]] = []

    def watch(batch: "Batch") -> None:
        alive.extend(weakref.ref(item) for item in (batch, *batch.rows))

    watched = attrs.evolve(case, strategy=around(case.strategy, after=watch))
    before = trace(case.model.module)
    with counted_forwards(case.model.module) as forwards:
        events: Any = case.attempt(watched.stream)
        case.attempt(events.__next__)
        done = len(forwards)
        events.close()
        expect(len(forwards) == done, case, "closing the stream ran the model again")
    del events
    if any(item() is not None for item in alive):
        gc.collect()  # it takes long, and cycles are rare
    left = {type(item()).__name__ for item in alive if item() is not None}
    expect(not left, case, f"after the stream was closed there is still a {' and a '.join(sorted(left))}")
    changed = differences(before, trace(case.model.module))
    expect(not changed, case, f"after the stream was closed there is a change of {', '.join(changed)}")


@check("S22", most_examples=10)
def capabilities(subject: StrategySubject, draw: Draw) -> None:
    """On a recurrent model it works, or what it needs is missed by name before the first forward pass."""
    seed = draw(st.integers(0, 9))
    model = KitModel(f"tiny mamba, 8 tokens, seed {seed}", tiny_mamba(8, seed=seed), 8)
    prompts = draw(st.lists(st.integers(0, 7), min_size=1, max_size=3))
    case = Case(
        strategy=draw(subject.strategies()),
        model=model,
        prompts=[[token] for token in prompts],
        seeds=[0] * len(prompts),
        max_new_tokens=4,
    )
    missing = case.strategy.needs - Session(model.module).offers
    if not missing:
        case.run()
        return
    with counted_forwards(model.module) as forwards:
        error = _refusal(case)
    expect(error is not None and not forwards, case, f"the model lacks {sorted(missing)}, and ran anyway")
    words = [case.strategy.NAME, type(model.module).__name__, min(missing).value]
    unnamed = [word for word in words if word not in str(error)]
    expect(not unnamed, case, f"the error does not name {', '.join(unnamed)}: {error}")


def _refusal(case: Case) -> CapabilityError | None:
    try:
        for _ in case.call().steps():
            pass
    except CapabilityError as error:
        return error
    return None


@check("S34", share=0.5)
def determinism(subject: StrategySubject, draw: Draw) -> None:
    """The same call gives the same, also after other calls with the same instance."""
    case, other = draw(subject.cases()), draw(subject.cases())
    first = case.run()
    attrs.evolve(other, strategy=case.strategy, copies=1).run()
    expect_same(case, first, case.run(), "again")


@check("S34", law="deterministic", most_examples=25)
def draws_nothing(subject: StrategySubject, draw: Draw) -> None:
    """The seed changes nothing."""
    case = draw(subject.cases())
    other = attrs.evolve(case, seeds=[seed + 1 for seed in case.seeds])
    expect_same(case, case.run(), other.run(), "with other seeds")


CHECKS = (
    global_randomness,
    no_traces,
    errors_get_through,
    cancellation,
    capabilities,
    determinism,
    draws_nothing,
)

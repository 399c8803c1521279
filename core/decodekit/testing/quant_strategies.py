"""Q5: the strategies' own checks, on a quantized model."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from decodekit.errors import DecodekitError
from decodekit.generate import generate
from decodekit.registry import registry
from decodekit.strategy import Strategy
from decodekit.testing.check import BrokenPromiseError, Check, Draw
from decodekit.testing.models import MarkovModel
from decodekit.testing.quant_model import VOCAB_SIZE, prompts
from decodekit.testing.quant_subject import logits_of
from decodekit.testing.strategy_checks import STRATEGY_CHECKS
from decodekit.testing.strategy_models import KitModel
from decodekit.testing.strategy_subject import StrategySubject

__all__ = ["installed_strategies", "strategy_findings"]

_NOISY = 0.01
"""Above, one row computed in another company may choose another token."""
_WITHIN_ONE_CALL = ("S12", "S13", "S16", "S17", "S18", "S19", "S20", "S34", "S38")
_ACROSS_CALLS = ("S1", "S2", "S3", "S6", "S7", "S9", "S10", "S11", "S15")


def strategy_findings(model: Any, strategies: Sequence[Strategy], noise: float, draw: Draw) -> Iterator[str]:
    """Run one drawn check of the strategies' half over each of them; what is broken, in words.

    Args:
        model: the quantized model, which is its own reference.
        strategies: what to decode with.
        noise: of the backend; above 0.01 only what happens within one call is compared.
        draw: draws the check and its calls.
    """
    kit = KitModel("the kit's model, quantized", model, VOCAB_SIZE, max(20 * noise, 1e-4))
    numbers = _WITHIN_ONE_CALL + (_ACROSS_CALLS if noise <= _NOISY else ())
    known: dict[str, Check[StrategySubject]] = {
        item.key: item for item in STRATEGY_CHECKS if item.id in numbers
    }
    chosen = known[draw(st.sampled_from([*known]))]
    logits_of(model, prompts(1, 2, 0))  # some kernels repack the weights at the first pass
    for strategy in strategies:
        subject = StrategySubject(type(strategy), strategy, models=(kit,))
        if chosen.skips(subject) is None:
            try:
                chosen.body(subject, draw)
                model.train(False)  # one of the checks tries the train mode
            except BrokenPromiseError as finding:
                yield f"{strategy.NAME} breaks {chosen.id} ({chosen.promise})\n{finding}"


@functools.cache
def installed_strategies() -> tuple[Strategy, ...]:
    """One instance of every installed strategy that decodes without arguments of its own."""
    made = []
    for entries in registry().entries("strategies").values():
        with contextlib.suppress(TypeError, DecodekitError):  # it needs an assistant model, say
            strategy = entries[0].cls()
            generate(MarkovModel.random(4), torch.tensor([[1]]), strategy=strategy, max_new_tokens=2)
            made.append(strategy)
    return tuple(made)

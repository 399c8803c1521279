"""The models that a strategy is tried on, named in words."""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs
import torch

from decodekit.errors import ParameterError
from decodekit.testing.models import CacheHashModel, MarkovModel, tiny_llama, tiny_mistral

__all__ = [
    "CACHED",
    "EVEN",
    "EXACT",
    "HALF",
    "KINDS",
    "ONE_LAW",
    "KitModel",
    "is_named",
    "model_named",
    "random_model",
]


_NAME = re.compile(r"(.+), (\d+) tokens, seed (\d+)")


@attrs.frozen(eq=False)
class KitModel:
    """A model and how to make it again.

    Attributes:
        name: as a reader would write it.
        module: a model of transformers; only tiny mistral has special tokens of its own.
        vocab_size: width of its logits.
        tolerance: how far the logarithm of a probability may be off, for its arithmetic.
    """

    name: str
    module: Any
    vocab_size: int
    tolerance: float = 1e-9

    def __str__(self) -> str:
        return self.name


def _with_holes(vocab_size: int, seed: int) -> MarkovModel:
    """Some tokens are impossible after some others; token 0 is always possible."""
    made = MarkovModel.random(vocab_size, seed=seed)
    random = torch.Generator().manual_seed(seed)
    holes = torch.rand(made.table.shape, generator=random) < 0.4
    holes[..., 0] = False
    made.table = made.table.masked_fill(holes, -torch.inf)
    return made


def _repeating(vocab_size: int, seed: int) -> MarkovModel:
    """Text that goes in circles, so that what came before is often a good draft."""
    made = MarkovModel.random(vocab_size, seed=seed)
    made.table[torch.arange(vocab_size), (torch.arange(vocab_size) + 1) % vocab_size] += 6
    return made


def _one_law(vocab_size: int, seed: int) -> MarkovModel:
    """Every token follows the same law, whatever came before."""
    made = MarkovModel.random(vocab_size, seed=seed)
    made.table = made.table[:1].repeat(vocab_size, 1)
    return made


def _even(vocab_size: int, seed: int) -> MarkovModel:
    """The same of the even tokens alone."""
    made = _one_law(vocab_size, seed)
    made.table = made.table.masked_fill(torch.arange(vocab_size) % 2 == 1, -torch.inf)
    return made


_NONE: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_MAKERS: dict[str, Callable[[int, int], Any]] = {
    "Markov of order 1": lambda size, seed: MarkovModel.random(size, seed=seed),
    "Markov of order 2": lambda size, seed: MarkovModel.random(size, 2, seed),
    "Markov with impossible tokens": _with_holes,
    "Markov in circles": _repeating,
    "Markov of equal logits": lambda size, seed: MarkovModel(torch.zeros(size, size)),
    "one law": lambda size, seed: _one_law(size, seed),
    "one law of the even tokens": lambda size, seed: _even(size, seed),
    "cache hash": lambda size, seed: CacheHashModel(size),
    "tiny llama": lambda size, seed: tiny_llama(size, seed=seed, **_NONE),
    "tiny llama in bfloat16": lambda size, seed: tiny_llama(size, seed=seed, dtype=torch.bfloat16, **_NONE),
    "tiny mistral": lambda size, seed: tiny_mistral(size, window=3, seed=seed),
}
EXACT = tuple(name for name in _MAKERS if name.startswith("Markov"))
"""Kinds whose logits are a table."""
CACHED = ("cache hash", "tiny llama", "tiny mistral")
"""Kinds whose logits show a wrong cache, mask or position."""
ONE_LAW = ("one law",)
"""A kind whose next token depends on nothing."""
EVEN = ("one law of the even tokens",)
"""The same, of which every other token is impossible."""
HALF = ("tiny llama in bfloat16",)
"""A kind whose logits are in half precision."""
KINDS = (*EXACT, "cache hash", "tiny llama")
"""The kinds that a check tries when it names none."""


def random_model(random: Random, kinds: Sequence[str], largest: int) -> KitModel:
    """A new model of one of the kinds, with 2 to ``largest`` tokens (at least 3 of tiny mistral)."""
    kind, seed = random.choice(kinds), random.randint(0, 99)
    size = random.randint(2, largest)
    size = max(size, 3) if kind == "tiny mistral" else size  # its special ids are 0 to 2
    return _made(kind, size, seed)


def is_named(name: str) -> bool:
    """Whether `model_named` knows the name."""
    match = _NAME.fullmatch(name)
    return match is not None and match[1] in _MAKERS


def model_named(name: str) -> KitModel:
    """The model that a report calls ``"KIND, N tokens, seed S"``.

    Raises:
        ParameterError: the text has another form, or there is no such kind.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in _MAKERS:
        message = f"model={name!r} is not 'KIND, N tokens, seed S' with a kind of {', '.join(_MAKERS)}"
        raise ParameterError(message)
    return _made(match[1], int(match[2]), int(match[3]))


def _made(kind: str, size: int, seed: int) -> KitModel:
    return KitModel(f"{kind}, {size} tokens, seed {seed}", _MAKERS[kind](size, seed), size)

"""The rows of ``make bench`` for lists of prompts: prompts and answers of very different lengths.

Nobody knows beforehand how long an answer will be: a criterion ends each, as EOS would. transformers' base is
what people write: batches of 16 in the order of the list.
"""

import functools
import random
from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import decodekit as dk
import torch
from decodekit_strategies.greedy import Greedy
from torch import Tensor

from tests.bench.models import loaded
from tests.bench.rows import Row

__all__ = ["batch_rows"]

PROMPTS, BATCH, SHORT, LONG, LEAST, MOST = 64, 16, 8, 200, 8, 96
MOST_OF_16 = 256
TEXT = (
    "Once upon a time, in a small village by the sea, there lived a boy who wanted to become a sailor. "
    "The capital of France is Paris, and its population is about two million people. Dear Sir or Madam, "
    "I am writing to complain about the service in your restaurant last Friday. It had rained all night. "
)


@attrs.frozen
class InBatches(Greedy):
    """Greedy decoding that no prompt may join."""

    ADMITS: ClassVar[bool] = False


@attrs.frozen(eq=False)
class Answers:
    """Ends every answer at a length of its own; a prompt is told by its first tokens.

    Attributes:
        prompts: the prompts, each of which begins in its own way.
        lengths: by the first tokens of a prompt its length and that of its answer.
        pad: stands left of shorter rows.
    """

    prompts: list[list[int]]
    lengths: dict[tuple[int, ...], tuple[int, int]]
    pad: int

    def __call__(self, input_ids: Tensor, scores: Any, **more: Any) -> Tensor:
        return torch.tensor([self._ended(row) for row in input_ids.tolist()])

    def _ended(self, row: list[int]) -> bool:
        start = next(place for place, token in enumerate(row) if token != self.pad)
        prompt, answer = self.lengths[tuple(row[start : start + SHORT])]
        return len(row) - start >= prompt + answer

    @classmethod
    @functools.cache
    def drawn(cls, count: int, longest: int, most: int) -> "Answers":
        """Lengths that have nothing to do with each other, of at most ``longest`` and ``most`` tokens."""
        _, tokenizer = loaded()
        chance = random.Random(0)
        period = tokenizer(TEXT)["input_ids"]
        starts = chance.sample(range(len(period)), count)
        sizes = [(chance.randint(SHORT, longest), chance.randint(LEAST, most)) for _ in starts]
        ids = period * (2 + longest // len(period))
        prompts = [ids[start : start + size] for start, (size, _) in zip(starts, sizes, strict=True)]
        keys = [tuple(prompt[:SHORT]) for prompt in prompts]
        return cls(prompts, dict(zip(keys, sizes, strict=True)), tokenizer.pad_token_id)

    def batch(self, start: int, most: int) -> dict[str, Any]:
        """The arguments of a call for 16 of the prompts."""
        some = self.prompts[start : start + BATCH]
        width = max(map(len, some))
        ids = [[self.pad] * (width - len(row)) + row for row in some]
        shown = [[0] * (width - len(row)) + [1] * len(row) for row in some]
        arguments = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(shown)}
        return arguments | {"stopping_criteria": [self]} | _without_eos(most)


def _without_eos(tokens: int) -> dict[str, Any]:
    return {"max_new_tokens": tokens, "min_new_tokens": tokens}


def _theirs() -> None:
    answers = Answers.drawn(PROMPTS, LONG, MOST)
    for start in range(0, PROMPTS, BATCH):
        loaded()[0].generate(**answers.batch(start, MOST))


def _ours(strategy: Any) -> None:
    answers = Answers.drawn(PROMPTS, LONG, MOST)
    results = dk.generate_batch(
        *loaded(),
        answers.prompts,
        batch_size=BATCH,
        strategy=strategy,
        stopping_criteria=[answers],
        **_without_eos(MOST),
    )
    assert sum(len(result.tokens) for result in results) == sum(size for _, size in answers.lengths.values())


def _one_batch(generate: Callable[..., Any]) -> None:
    generate(loaded()[0], **Answers.drawn(BATCH, 64, MOST_OF_16).batch(0, MOST_OF_16))


def batch_rows() -> dict[str, Row]:
    """The rows by name."""

    def ours() -> None:
        _ours("greedy")

    def without_admission() -> None:
        _ours(InBatches())

    long: dict[str, Any] = {"runs": 2, "warm": loaded}  # half a minute and more a run
    return {
        "batch of 16, answers of 8 to 256 tokens": Row(
            "transformers",
            lambda: _one_batch(lambda model, **call: model.generate(**call)),
            lambda: _one_batch(dk.generate),
            target=1.8,
            **long,
        ),
        "batch of 64 skewed prompts": Row("transformers, 16 by 16", _theirs, ours, slow=True, **long),
        "batch of 64 skewed prompts, admission": Row(
            "our batches of 16", without_admission, ours, slow=True, **long
        ),
    }

"""The rows of ``make bench`` for lists of prompts: prompts and answers of very different lengths.

Nobody knows beforehand how long an answer will be: a criterion ends each, as EOS would. transformers' base is
what people write: batches of 16 in the order of the list.
"""

import random
from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import decodekit as dk
import torch
from decodekit_strategies.greedy import Greedy
from torch import Tensor

Run = Callable[[], Any]
PROMPTS, BATCH, SHORT, LONG, LEAST, MOST = 64, 16, 8, 200, 8, 96
TEXT = (
    "Once upon a time, in a small village by the sea, there lived a boy who wanted to become a sailor. "
    "The capital of France is Paris, and its population is about two million people. Dear Sir or Madam, "
    "I am writing to complain about the service in your restaurant last Friday. It had rained all night. "
)
ALL = {"max_new_tokens": MOST, "min_new_tokens": MOST}  # without EOS


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
    def drawn(cls, tokenizer: Any) -> "Answers":
        """Lengths that have nothing to do with each other."""
        chance = random.Random(0)
        period = tokenizer(TEXT)["input_ids"]
        starts = chance.sample(range(len(period)), PROMPTS)
        sizes = [(chance.randint(SHORT, LONG), chance.randint(LEAST, MOST)) for _ in starts]
        ids = period * (2 + LONG // len(period))
        prompts = [ids[start : start + size] for start, (size, _) in zip(starts, sizes, strict=True)]
        keys = [tuple(prompt[:SHORT]) for prompt in prompts]
        return cls(prompts, dict(zip(keys, sizes, strict=True)), tokenizer.pad_token_id)


def batch_rows(model: Any, tokenizer: Any) -> dict[str, tuple[str, Run, Run]]:
    """For each row what the base is, the base, and ours."""
    answers = Answers.drawn(tokenizer)
    prompts = answers.prompts

    def theirs() -> None:
        for start in range(0, PROMPTS, BATCH):
            some = prompts[start : start + BATCH]
            width = max(map(len, some))
            ids = torch.tensor([[answers.pad] * (width - len(row)) + row for row in some])
            shown = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in some])
            model.generate(input_ids=ids, attention_mask=shown, stopping_criteria=[answers], **ALL)

    def ours(strategy: Any) -> Run:
        def run() -> None:
            results = dk.generate_batch(
                model,
                tokenizer,
                prompts,
                batch_size=BATCH,
                strategy=strategy,
                stopping_criteria=[answers],
                **ALL,
            )
            assert sum(len(result.tokens) for result in results) == sum(
                answer for _, answer in answers.lengths.values()
            )

        return run

    return {
        "batch of 64 skewed prompts": ("transformers, 16 by 16", theirs, ours("greedy")),
        "batch of 64 skewed prompts, admission": ("our batches of 16", ours(InBatches()), ours("greedy")),
    }

"""The rows of ``make bench`` for chains: what a step does between the model's logits and the next token."""

import functools
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import decodekit as dk
import torch
from decodekit.distribution import process
from decodekit.ledger import Ledger
from decodekit.randomness import GlobalNoise, Noise, Purpose, SeededNoise
from decodekit.row import Row
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation import logits_process as theirs

from tests.bench.models import loaded
from tests.bench.rows import Row as Comparison

__all__ = ["chain_rows"]

Run = Callable[[], Any]
ROWS, VOCAB, STEPS = 8, 128_256, 4
TEXTS = (
    "Once upon a time, in a small village by the sea, there lived a boy who wanted to become a sailor.",
    "The capital of France is Paris, and its population is about two million people. In 1900 the city",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n",
    "Dear Sir or Madam, I am writing to complain about the service in your restaurant last Friday.",
)
WARPERS: dict[str, list[Any]] = {
    "temperature=0.8 > top_k=50 > top_p=0.95": [
        theirs.TemperatureLogitsWarper(0.8),
        theirs.TopKLogitsWarper(50),
        theirs.TopPLogitsWarper(0.95),
    ],
    "temperature=0.8 > top_p=0.95": [theirs.TemperatureLogitsWarper(0.8), theirs.TopPLogitsWarper(0.95)],
    "temperature=0.8 > min_p=0.05": [theirs.TemperatureLogitsWarper(0.8), theirs.MinPLogitsWarper(0.05)],
}
"""Chains, and what transformers has for them."""
TARGETS = dict(zip(WARPERS, (20, 8, 8), strict=True))
"""How many times as fast they are meant to be."""


def chain_rows() -> dict[str, Comparison]:
    """The rows by name; the model's logits are taken when a row runs."""
    rows: dict[str, Comparison] = {}
    for text, warpers in WARPERS.items():
        base = functools.partial(_with_transformers, warpers)
        for name, noise in ((f"chain {text}, seed", SeededNoise), (f"chain {text}", _global_noise)):
            rows[name] = _row("transformers", base, functools.partial(_steps, text, noise), TARGETS[text])
    values = [f"temperature={0.7 + row / 50} > top_p=0.95" for row in range(ROWS)]
    rows["chain temperature > top_p, values per row"] = _row(
        "one value for all",
        functools.partial(_one_by_one, values),
        functools.partial(_steps, values, SeededNoise, times=ROWS),
    )
    sets = [*["temperature=0.8 > top_p=0.95"] * (ROWS - 1), "dry > temperature=0.8 > top_k=50 > min_p=0.05"]
    rows["chain sets of processors per row"] = _row(
        "a batch for each set", functools.partial(_apart, sets), functools.partial(_steps, sets, SeededNoise)
    )
    for text in ("repetition_penalty=1.1", "no_repeat_ngram_size=3", "dry", "frequency_penalty=0.5"):
        short, long = (functools.partial(_with_history, text, length) for length in (256, 16_384))
        rows[f"chain {text}, 16,384 tokens of history"] = _row("256 tokens", short, long)
    return rows


def _row(
    base: str, theirs: Callable[[], Run], ours: Callable[[], Run], target: float | None = None
) -> Comparison:
    """A row of runs that are made when they are first wanted."""
    first, second = functools.cache(theirs), functools.cache(ours)
    return Comparison(base, lambda: first()(), lambda: second()(), target=target)


def _global_noise() -> Noise:
    return GlobalNoise(ROWS)


@functools.cache
def _logits() -> list[Tensor]:
    """Batches of the model's own logits, with more of their lowest up to the vocabulary, in any order."""
    model, tokenizer = loaded()
    order = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found = [model(**tokenizer(text, return_tensors="pt")).logits[0].float() for text in TEXTS]
    every = torch.cat(found)
    every = every[torch.randperm(len(every), generator=order)[: ROWS * STEPS]]
    lowest = every.sort(dim=-1).values[:, : every.shape[1] // 2]
    more = torch.randint(lowest.shape[1], (len(every), VOCAB - every.shape[1]), generator=order)
    wide = torch.cat([every, lowest.gather(1, more)], dim=1)[:, torch.randperm(VOCAB, generator=order)]
    return list(wide.split(ROWS))


def _with_transformers(warpers: Sequence[Any]) -> Run:
    chain, prompt = LogitsProcessorList(warpers), torch.zeros(ROWS, 1, dtype=torch.long)

    def run() -> list[Tensor]:
        return [torch.multinomial(chain(prompt, logits).softmax(-1), 1) for logits in _logits()]

    return run


def _one_by_one(texts: Sequence[str]) -> Run:
    """Batches with one chain for all rows, the same values in all as `_steps` has in each."""
    runs = [_steps(text, SeededNoise) for text in texts]
    return lambda: [run() for run in runs]


def _apart(texts: Sequence[str]) -> Run:
    """The rows of each set as a batch of their own."""
    sets = list(dict.fromkeys(texts))
    places = [[row for row, text in enumerate(texts) if text == each] for each in sets]
    logits = [[batch[rows] for batch in _logits()] for rows in places]
    runs = [_steps(each, SeededNoise, given=given) for each, given in zip(sets, logits, strict=True)]
    return lambda: [run() for run in runs]


def _steps(
    texts: str | Sequence[str],
    noise_of: Callable[[], Noise],
    times: int = 1,
    given: Sequence[Tensor] | None = None,
) -> Run:
    """What a step does: checks, chain, draw, and the log-probability of the token."""
    texts = [texts] if isinstance(texts, str) else texts
    given = _logits() if given is None else given
    count = len(given[0])
    chains = [dk.Chain.parse(text).bind(dk.CallContext(vocab_size=VOCAB)) for text in texts]
    rows = [Row(prompt=i, slot=i, seed=i, chain=i % len(chains), prompt_tokens=[0]) for i in range(count)]
    noise = noise_of()
    history = Ledger([[0]] * count, 0, 10, torch.device("cpu")).history

    def run() -> list[Any]:
        drawn = []
        for logits in [*given] * times:
            p = process(chains, rows, lambda: history, logits)
            tokens = p.columns[0].draw(noise.field(rows, [1] * count, VOCAB, Purpose.TOKEN))
            drawn.append(p.logprobs_of([[token] for token in tokens.tolist()]))
        return drawn

    return run


def _with_history(text: str, length: int) -> Run:
    """Steps at a length of the history: a token comes, and the chain runs."""
    chain = dk.Chain.parse(text).bind(dk.CallContext(vocab_size=VOCAB))
    ledger = Ledger([_words(length, row) for row in range(ROWS)], 0, 10**6, torch.device("cpu"))
    coming = itertools.cycle(_words(300, ROWS))

    def run() -> None:
        for _ in range(8 * STEPS):
            ledger.append([[next(coming)] for _ in range(ROWS)])
            chain.run(_logits()[0], ledger.history, [()] * ROWS)

    return run


def _words(count: int, seed: int) -> list[int]:
    """Tokens as in a text: some are frequent, and each is followed by one of a few."""
    chance, after, word = random.Random(seed), dict[int, list[int]](), 0
    words = []
    for _ in range(count):
        words.append(word * 13 % VOCAB)
        few = after.setdefault(word, [min(int(chance.paretovariate(0.4)), 9_000) for _ in range(12)])
        word = chance.choice(few)
    return words

"""The rows of ``make bench`` for chains: what a step does between the model's logits and the next token."""

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

Run = Callable[[], Any]
ROWS, VOCAB, STEPS = 8, 128_256, 4
TEXTS = (
    "Once upon a time, in a small village by the sea, there lived a boy who wanted to become a sailor.",
    "The capital of France is Paris, and its population is about two million people. In 1900 the city",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n",
    "Dear Sir or Madam, I am writing to complain about the service in your restaurant last Friday.",
)
WARPERS = {
    "temperature=0.8 > top_k=50 > top_p=0.95": (
        theirs.TemperatureLogitsWarper(0.8),
        theirs.TopKLogitsWarper(50),
        theirs.TopPLogitsWarper(0.95),
    ),
    "temperature=0.8 > top_p=0.95": (theirs.TemperatureLogitsWarper(0.8), theirs.TopPLogitsWarper(0.95)),
    "temperature=0.8 > min_p=0.05": (theirs.TemperatureLogitsWarper(0.8), theirs.MinPLogitsWarper(0.05)),
}


def chain_rows(model: Any, tokenizer: Any) -> dict[str, tuple[str, Run, Run]]:
    """For each row what the base is, the base, and ours."""
    batches = _logits(model, tokenizer)
    rows: dict[str, tuple[str, Run, Run]] = {}
    for text, warpers in WARPERS.items():
        base = _with_transformers(warpers, batches)
        rows[f"chain {text}, seed"] = ("transformers", base, _steps(text, batches, SeededNoise()))
        rows[f"chain {text}"] = ("transformers", base, _steps(text, batches, GlobalNoise(ROWS)))
    each = [f"temperature={0.7 + row / 50} > top_p=0.95" for row in range(ROWS)]
    same, own = _one_by_one(each, batches), _steps(each, batches, SeededNoise(), ROWS)
    rows["chain temperature > top_p, values per row"] = ("one value for all", same, own)
    sets = [*["temperature=0.8 > top_p=0.95"] * (ROWS - 1), "dry > temperature=0.8 > top_k=50 > min_p=0.05"]
    same, own = _one_by_one(sets, batches), _steps(sets, batches, SeededNoise(), ROWS)
    rows["chain sets of processors per row"] = ("each set for all", same, own)
    for text in ("repetition_penalty=1.1", "no_repeat_ngram_size=3", "dry", "frequency_penalty=0.5"):
        short, long = (_with_history(text, batches[0], length) for length in (256, 16_384))
        rows[f"chain {text}, 16,384 tokens of history"] = ("256 tokens", short, long)
    return rows


def _logits(model: Any, tokenizer: Any) -> list[Tensor]:
    """Batches of the model's own logits, with more of their lowest up to the vocabulary, in any order."""
    order = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found = [model(**tokenizer(text, return_tensors="pt")).logits[0].float() for text in TEXTS]
    every = torch.cat(found)
    every = every[torch.randperm(len(every), generator=order)[: ROWS * STEPS]]
    lowest = every.sort(dim=-1).values[:, : every.shape[1] // 2]
    more = torch.randint(lowest.shape[1], (len(every), VOCAB - every.shape[1]), generator=order)
    wide = torch.cat([every, lowest.gather(1, more)], dim=1)[:, torch.randperm(VOCAB, generator=order)]
    return list(wide.split(ROWS))


def _with_transformers(warpers: Sequence[Any], batches: Sequence[Tensor]) -> Run:
    chain, prompt = LogitsProcessorList(warpers), torch.zeros(ROWS, 1, dtype=torch.long)

    def run() -> list[Tensor]:
        return [torch.multinomial(chain(prompt, logits).softmax(-1), 1) for logits in batches]

    return run


def _one_by_one(texts: Sequence[str], batches: Sequence[Tensor]) -> Run:
    """Batches with one chain for all rows, the same values in all as `_steps` has in each."""
    runs = [_steps(text, batches, SeededNoise()) for text in texts]
    return lambda: [run() for run in runs]


def _steps(texts: str | Sequence[str], batches: Sequence[Tensor], noise: Noise, times: int = 1) -> Run:
    """What a step does: checks, chain, draw, and the log-probability of the token."""
    texts = [texts] if isinstance(texts, str) else texts
    chains = [dk.Chain.parse(text).bind(dk.CallContext(vocab_size=VOCAB)) for text in texts]
    rows = [Row(prompt=i, slot=i, seed=i, chain=i % len(chains), prompt_tokens=[0]) for i in range(ROWS)]
    history = Ledger([[0]] * ROWS, 0, 10, torch.device("cpu")).history

    def run() -> list[Any]:
        drawn = []
        for logits in [*batches] * times:
            p = process(chains, rows, lambda: history, logits)
            tokens = p.columns[0].draw(noise.field(rows, [1] * ROWS, VOCAB, Purpose.TOKEN))
            drawn.append(p.logprobs_of([[token] for token in tokens.tolist()]))
        return drawn

    return run


def _with_history(text: str, logits: Tensor, length: int) -> Run:
    """Steps at a length of the history: a token comes, and the chain runs."""
    chain = dk.Chain.parse(text).bind(dk.CallContext(vocab_size=VOCAB))
    ledger = Ledger([_words(length, row) for row in range(ROWS)], 0, 10**6, torch.device("cpu"))
    coming = itertools.cycle(_words(300, ROWS))

    def run() -> None:
        for _ in range(8 * STEPS):
            ledger.append([[next(coming)] for _ in range(ROWS)])
            chain.run(logits, ledger.history, [()] * ROWS)

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

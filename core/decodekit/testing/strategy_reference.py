"""What plain decoding gives, computed the slow way: one row at a time, without a cache, from the start."""

from collections.abc import Iterator

import torch
from torch import Tensor

from decodekit.chain import Chain
from decodekit.history import History
from decodekit.processor import CallContext
from decodekit.testing.strategy_case import Case

__all__ = ["full_logits", "greedy_tokens", "scores", "sequence_law"]


def full_logits(model: object, tokens: list[int]) -> Tensor:
    """Logits [T, V] after each of the T tokens, from one forward pass without a cache."""
    ids = torch.tensor([tokens])
    with torch.no_grad():
        output = model(  # type: ignore[operator]  # a model of transformers
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=torch.arange(len(tokens))[None],
            use_cache=False,
        )
    logits: Tensor = output.logits[0]
    return logits


def scores(case: Case, prompt: list[int], tokens: list[int]) -> list[Tensor]:
    """Processed logits [V] after 0, 1, … all of the generated tokens."""
    chain = Chain(case.processors).bind(CallContext(vocab_size=case.model.vocab_size, eos_token_ids=case.eos))
    raw = full_logits(case.model.module, prompt + tokens)[len(prompt) - 1 :]
    states, found = chain.init(prompt), []
    for count in range(len(tokens) + 1):
        history = History.of([prompt], [tokens[:count]])
        processed, outputs = chain.apply(raw[count : count + 1], history, [states])
        found.append(processed[0])
        if count < len(tokens):
            states = chain.advance(states, tokens[count], outputs[0])
    return found


def greedy_tokens(case: Case, prompt: list[int]) -> list[int]:
    """The most probable token each time, the lowest id of equals, until EOS or the case's length."""
    tokens: list[int] = []
    while len(tokens) < case.max_new_tokens and (not tokens or tokens[-1] not in case.eos):
        tokens.append(int(scores(case, prompt, tokens)[-1].argmax()))
    return tokens


def sequence_law(case: Case, prompt: list[int]) -> dict[tuple[int, ...], float]:
    """The probability of every sequence of tokens that ends with EOS or at the case's length."""
    return dict(_continuations(case, prompt, [], 1.0))


def _continuations(
    case: Case, prompt: list[int], tokens: list[int], probability: float
) -> Iterator[tuple[tuple[int, ...], float]]:
    if len(tokens) == case.max_new_tokens or (tokens and tokens[-1] in case.eos):
        yield tuple(tokens), probability
        return
    for token, p in enumerate(scores(case, prompt, tokens)[-1].softmax(-1).tolist()):
        if p > 0:
            yield from _continuations(case, prompt, [*tokens, token], probability * p)

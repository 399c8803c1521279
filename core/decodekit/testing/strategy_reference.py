"""What plain decoding gives, computed the slow way: one row at a time, without a cache, from the start."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from decodekit.chain import Chain
from decodekit.history import History
from decodekit.processor import CallContext
from decodekit.scores import Memory
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
    raw = full_logits(case.model.module, prompt + tokens)[len(prompt) - 1 :]
    walk = _Walk(case, prompt)
    found = [walk.scores(raw[0])]
    for token, logits in zip(tokens, raw[1:], strict=True):
        walk.go(token)
        found.append(walk.scores(logits))
    return found


def greedy_tokens(case: Case, prompt: list[int]) -> list[int]:
    """The most probable token each time, the lowest id of equals, until EOS or the case's length."""
    walk = _Walk(case, prompt)
    while len(walk.tokens) < case.max_new_tokens and (not walk.tokens or walk.tokens[-1] not in case.eos):
        raw = full_logits(case.model.module, prompt + walk.tokens)[-1]
        walk.go(int(walk.scores(raw).argmax()))
    return walk.tokens


class _Walk:
    """The chain of a case along one row: asked for its scores, then told the next token, in turn."""

    def __init__(self, case: Case, prompt: list[int]) -> None:
        context = CallContext(vocab_size=case.model.vocab_size, eos_token_ids=case.eos)
        self._chain = Chain(case.processors).bind(context)
        self._prompt = prompt
        self._states = self._chain.init(prompt)
        self._memories: Sequence[Memory] = ()
        self.tokens: list[int] = []

    def scores(self, logits: Tensor) -> Tensor:
        """The processed logits [V]."""
        history = History.of([self._prompt], [self.tokens])
        processed, (self._memories,) = self._chain.apply(logits[None], history, [self._states])
        return processed[0]

    def go(self, token: int) -> None:
        """Go on by the token."""
        self._states = self._chain.advance(self._states, token, self._memories)
        self.tokens.append(token)


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

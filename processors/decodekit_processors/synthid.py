"""SynthID text: a watermark by a tournament of keyed coins, which leaves the law of a token as it is."""

import functools
import math
from collections.abc import Sequence
from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, ParameterError, Phase, Place, Processor, param
from torch import Tensor
from torch.nn.functional import pad

from decodekit_processors._common import possible, probabilities, wide
from decodekit_processors._watermarks import Detection, as_tokens, verdict

__all__ = ["SynthID"]

_MULTIPLIER = 6364136223846793005  # of the linear congruential generator that hashes
_LARGEST = 2**17
"""Up to this size the tables of coins are kept for each key."""


@attrs.frozen
class SynthID(Processor):
    """Let the keys' coins g decide between tokens, depth by depth: ``p_i <- p_i (1 + g_i - Σ p g)``.

    The coins are hashes of key, token and the ngram_len - 1 generated tokens before it (0 where there are
    none yet, as in transformers). Over all keys a token keeps its probability. Where a context has come
    before, nothing is marked. All of this follows from the history: transformers keeps it in the processor,
    where beams and drafts mix it up. A token that is ruled out stays so; there it gets the lowest number.

    Source: Dathathri et al. (2024), "Scalable watermarking for identifying large language model outputs",
        Nature 634; the hashes of transformers 5.
    Range: keys, one a depth, and ngram_len in [2, inf); context_history_size in [1, inf), how many
        contexts back count as seen; sampling_table_size in [1, 2^24].
    Shape: logits [B, V] -> [B, V], log-probabilities in float32 or better.
    Law: for a random key the mean over the keys of ``p_i`` is the ``p_i`` before.
    Raises: ParameterError when a parameter is not in its range or there is no key.
    """

    NAME: ClassVar[str] = "synthid"
    LAWS: ClassVar[Laws] = Laws(shift_invariant=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.WATERMARK, last=True)

    keys: tuple[int, ...] = param(help="The secret: one number for each depth, often 30.")
    ngram_len: int = param(5, range="[2, inf)", help="Tokens that are hashed together.")
    context_history_size: int = param(1024, range="[1, inf)", help="How many contexts count as seen.")
    sampling_table_seed: int = param(0, range="[0, 9007199254740991]", help="Draws the table of coins.")
    sampling_table_size: int = param(65_536, range="[1, 16777216]", help="Coins in the table.")
    skip_first_ngram_calls: bool = param(False, help="Leave the first ngram_len - 1 tokens unmarked.")
    debug_mode: bool = param(False, help="Mark the uniform law instead of the model's.")

    def __attrs_post_init__(self) -> None:
        if not self.keys:
            message = "keys=() is not allowed: give at least one key, e.g. 30 random numbers"
            raise ParameterError(message)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logarithms of the probabilities after the tournament."""
        if self.debug_mode:
            logits = torch.where(possible(logits), torch.ones_like(logits), logits)
        context, unmarked = self._contexts(history)
        vocabulary = torch.arange(logits.shape[1], device=logits.device)
        ngrams = _hash(context[:, None], vocabulary)
        p = probabilities(logits)
        for key in self.keys:
            g = self._coins(ngrams, key).to(p.dtype)
            p = p * (1 + g - (g * p).sum(dim=1, keepdim=True))
        marked = p.clamp(min=0).log()  # a rounding error below 0 is a 0
        return torch.where(unmarked[:, None], logits.to(wide(logits)), marked).to(logits.dtype)

    def _contexts(self, history: History) -> tuple[Tensor, Tensor]:
        """The hash of each row's context, int64 [B], and whether it is not to be marked, bool [B]."""
        before = self.ngram_len - 1
        counts = history.new_lengths[:, None]
        longest = int(counts.max())
        generated = torch.where(history.generated_mask, history.tokens, 0)
        tokens = pad(generated[:, generated.shape[1] - longest :], (before, 0))
        windows = tokens.unfold(1, before, 1)  # [B, longest + 1, before]
        hashes = _fold(windows)
        step = torch.arange(longest + 1, device=counts.device) - (longest - counts)  # 0 at the first token
        first = before if self.skip_first_ngram_calls else 0
        seen = (step >= first) & (step < counts) & (step >= counts - self.context_history_size)
        repeated = ((hashes == hashes[:, -1:]) & seen).any(dim=1)
        return hashes[:, -1], repeated | (counts[:, 0] < first)

    def _coins(self, ngrams: Tensor, key: int) -> Tensor:
        """The g-values of hashed n-grams under one key: 0.0 or 1.0."""
        seed, size, device = self.sampling_table_seed, self.sampling_table_size, ngrams.device
        if size <= _LARGEST and size & (size - 1) == 0:
            return _key_table(seed, size, key, device)[ngrams & (size - 1)]
        return _table(seed, size, device)[_hash(ngrams, key) % size]

    def detect(self, ids: Sequence[int] | Tensor, *, weighted: bool = True) -> Detection:
        """Look for the mark in a text: is the mean of the g-values above 1/2?

        A context that has come before counts once.

        Args:
            ids: the generated tokens, int64 [T] or a list, without the prompt.
            weighted: weigh the depths from 10 down to 1, as the first carry the most evidence (the paper's
                weighted mean score).

        Raises:
            ParameterError: the text is shorter than ngram_len.
        """
        tokens = torch.tensor(as_tokens(ids, self.ngram_len))
        windows = tokens.unfold(0, self.ngram_len, 1)
        fresh = self._fresh(_fold(windows[:, :-1]).tolist())
        hashes = _fold(windows[fresh])
        g = torch.stack([self._coins(hashes, key) for key in self.keys], dim=1).double()
        weights = torch.linspace(10 if weighted else 1, 1, len(self.keys), dtype=torch.float64)
        weights /= weights.sum()
        deviation = math.sqrt(float((weights**2).sum()) / (4 * len(fresh)))
        return verdict(len(fresh), float((g @ weights).mean()), 0.5, deviation)

    def _fresh(self, contexts: list[int]) -> list[int]:
        """The places of the contexts that were not among the last ones, as the generator saw them."""
        fresh, last = [], dict[int, int]()
        for place, context in enumerate(contexts):
            if place - last.get(context, -self.context_history_size - 1) > self.context_history_size:
                fresh.append(place)
            last[context] = place
        return fresh


def _hash(value: Tensor, data: Tensor | int) -> Tensor:
    """One more number hashed on top; int64, which wraps."""
    return (value + data) * _MULTIPLIER + 1


def _fold(windows: Tensor) -> Tensor:
    """The hashes of int64 [..., n] along the last dimension."""
    value = torch.ones_like(windows[..., 0])
    for column in windows.unbind(-1):
        value = _hash(value, column)
    return value


@functools.lru_cache(maxsize=8)
def _table(seed: int, size: int, device: torch.device) -> Tensor:
    coins = torch.randint(0, 2, (size,), generator=torch.Generator().manual_seed(seed))
    return coins.float().to(device)


@functools.lru_cache(maxsize=128)
def _key_table(seed: int, size: int, key: int, device: torch.device) -> Tensor:
    """The coins of one key by the low bits of an n-gram's hash, on which alone those of the next depend."""
    return _table(seed, size, device)[_hash(torch.arange(size, device=device), key) & (size - 1)]

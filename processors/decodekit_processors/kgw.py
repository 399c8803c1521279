"""KGW: a watermark of green tokens that the tokens before choose."""

import functools
from collections.abc import Sequence
from typing import ClassVar, Literal

import attrs
import torch
from decodekit import History, Laws, ParameterError, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._watermarks import Detection, as_tokens, green_detection, green_list

__all__ = ["KGW"]

_CANDIDATES = 40
"""How many of the largest logits selfhash looks at, as in the authors' code."""
_TABLE_SIZE = 1_000_003


@attrs.frozen
class KGW(Processor):
    """Raise the logits of green tokens, a random part of the vocabulary that key and context choose.

    With ``lefthash`` the previous token chooses the list. With ``selfhash`` the last tokens and the
    candidate itself choose, for the 40 largest logits (ties at the end go to the lowest ids). Lists are
    those of transformers on the CPU, on every device. A row with less than context_width tokens is
    not marked; padding doesn't count, as it does in transformers. It belongs at the end of a chain.

    Source: Kirchenbauer et al. (2023), "A Watermark for Large Language Models", arXiv 2301.10226,
        algorithm 2, and "On the Reliability of Watermarks", arXiv 2306.04634, for selfhash; the lists of
        transformers 5.
    Range: greenlist_ratio in (0, 1), bias any number, 0 changes nothing; hashing_key in [0, 2^53);
        context_width, vocab_size in [1, inf).
    Shape: logits [B, V] -> [B, V].
    Law: ``x_i + bias`` where token i is green.
    Raises: ParameterError when a parameter is not in its range, or `detect` lacks vocab_size.
    """

    NAME: ClassVar[str] = "kgw"
    LAWS: ClassVar[Laws] = Laws(shift_invariant=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.WATERMARK)

    greenlist_ratio: float = param(0.25, range="(0, 1)", help="γ, the green part of the vocabulary.")
    bias: float = param(2.0, range="(-inf, inf)", neutral=0.0, help="δ, what green logits gain; 0 is off.")
    hashing_key: int = param(
        15485863, range="[0, 9007199254740991]", help="The secret; choose one of your own."
    )
    seeding_scheme: Literal["lefthash", "selfhash"] = param(
        "lefthash", choices=("lefthash", "selfhash"), help="Which tokens choose the green list."
    )
    context_width: int = param(1, range="[1, inf)", help="Tokens that choose; lefthash uses the last one.")
    vocab_size: int | None = param(
        None, range="[1, inf)", help="What lists are drawn from; left out, the width of the logits."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with those of the green tokens raised."""
        if self.bias == 0:
            return logits
        green = torch.zeros(logits.shape, dtype=torch.bool)
        size = self.vocab_size or logits.shape[1]
        width = min(size, logits.shape[1])
        for row in range(len(history)):
            tokens = history.recent(row, self.context_width)
            if len(tokens) < self.context_width:
                continue
            if self.seeding_scheme == "lefthash":
                green[row, :width] = self._left_list(tokens[-1], size)[:width]
            else:
                best = logits[row].sort(descending=True, stable=True).indices[:_CANDIDATES].tolist()
                green[row, [token for token in best if self._is_self_green((*tokens, token), size)]] = True
        return torch.where(green.to(logits.device), logits + self.bias, logits)

    def _left_list(self, previous: int, vocab_size: int) -> Tensor:
        return green_list(self.hashing_key * previous, vocab_size, self.greenlist_ratio)

    def _is_self_green(self, window: tuple[int, ...], vocab_size: int) -> bool:
        """Whether the last token of the window is green after the others."""
        seed = _self_seed(self.hashing_key, window[-self.context_width :])
        return _is_green(seed, vocab_size, self.greenlist_ratio, window[-1])

    def detect(self, ids: Sequence[int] | Tensor, *, ignore_repeated_ngrams: bool = True) -> Detection:
        """Look for the mark in a text.

        Args:
            ids: the generated tokens, int64 [T] or a list; a prompt before them only weakens the signal.
            ignore_repeated_ngrams: count what is said again once. A repetition is no further evidence, and
                would make z too large in texts without the mark; transformers' default counts all.

        Raises:
            ParameterError: vocab_size is not given, or the text is too short.
        """
        if self.vocab_size is None:
            message = "vocab_size=None is not allowed for detect: give the width of the model's logits"
            raise ParameterError(message)
        left = self.seeding_scheme == "lefthash"
        length = self.context_width + left
        tokens = as_tokens(ids, length)
        windows = [tuple(tokens[end - length : end]) for end in range(length, len(tokens) + 1)]
        windows = [window[-2:] for window in windows] if left else windows
        windows = list(dict.fromkeys(windows)) if ignore_repeated_ngrams else windows
        size = self.vocab_size
        if left:
            greens = [_in(self._left_list(before, size), token) for before, token in windows]
        else:
            greens = [self._is_self_green(window, size) for window in windows]
        return green_detection(greens, self.greenlist_ratio)


def _in(green: Tensor, token: int) -> bool:
    return token < len(green) and bool(green[token])


@functools.lru_cache(maxsize=65_536)
def _is_green(seed: int, vocab_size: int, ratio: float, token: int) -> bool:
    return _in(green_list.__wrapped__(seed, vocab_size, ratio), token)


@functools.lru_cache(maxsize=8)
def _table(key: int) -> Tensor:
    return torch.randperm(_TABLE_SIZE, generator=torch.Generator().manual_seed(key))


def _self_seed(key: int, window: Sequence[int]) -> int:
    """The smallest product of the key with the hash of a token and that of the last one; int64 wraps."""
    hashes = _table(key)[torch.tensor(window) % _TABLE_SIZE] + 1
    return int((key * hashes * hashes[-1]).min())

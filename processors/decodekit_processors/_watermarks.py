"""What watermarks share: lists of green tokens, and the verdict of a detector."""

import functools
import math
from collections.abc import Sequence

import attrs
import torch
from decodekit import ParameterError
from torch import Tensor

__all__ = ["Detection", "as_tokens", "green_detection", "green_list", "verdict"]


@attrs.frozen
class Detection:
    """What a detector says of a text.

    Attributes:
        scored: how many tokens could carry the mark and were counted.
        share: the share of marks among them, in [0, 1]: of green tokens, or the mean of the g-values.
        expected: the share in a text without the mark, or with that of another key.
        z: by how many standard deviations the share is above it; without the mark it is near N(0, 1).
        p_value: the probability of such a z, or a larger one, without the mark.
    """

    scored: int
    share: float
    expected: float
    z: float
    p_value: float

    def is_marked(self, threshold: float = 3.0) -> bool:
        """Whether z is above the threshold; 3 is wrong for one of 740 texts without the mark."""
        return self.z > threshold


def verdict(scored: int, share: float, expected: float, deviation: float) -> Detection:
    """The detection of a share whose standard deviation without the mark is ``deviation``."""
    z = (share - expected) / deviation
    return Detection(scored, share, expected, z, 0.5 * math.erfc(z / math.sqrt(2)))


def green_detection(greens: Sequence[bool], ratio: float) -> Detection:
    """The detection of a text whose scored tokens are green or not: a one-sided test of a proportion."""
    count = len(greens)
    return verdict(count, sum(greens) / count, ratio, math.sqrt(ratio * (1 - ratio) / count))


def as_tokens(ids: Sequence[int] | Tensor, least: int) -> list[int]:
    """The tokens of one text as a list.

    Raises:
        ParameterError: it is not one text, or has less than ``least`` tokens.
    """
    tokens = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    if not all(isinstance(token, int) for token in tokens):
        message = "ids must be the token ids of one text, int64 [T] or a list: call detect once a text"
        raise ParameterError(message)
    if len(tokens) < least:
        message = (
            f"ids has {len(tokens)} tokens: the detector needs at least {least}; give it more of the text"
        )
        raise ParameterError(message)
    return tokens


@functools.lru_cache(maxsize=256)
def green_list(seed: int, vocab_size: int, ratio: float) -> Tensor:
    """Which tokens are green, bool [vocab_size]: the first of a permutation; nobody may change it.

    It is drawn on the CPU whatever the device of the logits, so that a text's mark doesn't depend on it.
    """
    generator = torch.Generator().manual_seed(seed % (2**64 - 1))
    green = torch.zeros(vocab_size, dtype=torch.bool)
    green[torch.randperm(vocab_size, generator=generator)[: int(vocab_size * ratio)]] = True
    return green

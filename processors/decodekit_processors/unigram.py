"""Unigram: a watermark of green tokens that the key alone chooses."""

from collections.abc import Sequence
from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, ParameterError, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._watermarks import Detection, as_tokens, green_detection, green_list

__all__ = ["Unigram"]


@attrs.frozen
class Unigram(Processor):
    """Raise the logits of green tokens, one random part of the vocabulary for all texts of a key.

    It survives more editing than `kgw`, and is easier to learn from many texts. The list is drawn as those
    of `kgw`, on the CPU, from the key; it is not that of the authors' code. It belongs at the end of a chain.

    Source: Zhao et al. (2024), "Provable Robust Watermarking for AI-Generated Text", arXiv 2306.17439,
        section 3.
    Range: greenlist_ratio in (0, 1), bias any number, 0 changes nothing; hashing_key in [0, 2^53);
        vocab_size in [1, inf).
    Shape: logits [B, V] -> [B, V].
    Law: ``x_i + bias`` where token i is green.
    Raises: ParameterError when a parameter is not in its range, or `detect` lacks vocab_size.
    """

    NAME: ClassVar[str] = "unigram"
    LAWS: ClassVar[Laws] = Laws(shift_invariant=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.WATERMARK)

    greenlist_ratio: float = param(0.5, range="(0, 1)", help="γ, the green part of the vocabulary.")
    bias: float = param(2.0, range="(-inf, inf)", neutral=0.0, help="δ, what green logits gain; 0 is off.")
    hashing_key: int = param(
        15485863, range="[0, 9007199254740991]", help="The secret; choose one of your own."
    )
    vocab_size: int | None = param(
        None, range="[1, inf)", help="What the list is drawn from; left out, the width of the logits."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with those of the green tokens raised."""
        if self.bias == 0:
            return logits
        width = logits.shape[1]
        green = self._green(self.vocab_size or width)[:width]
        green = torch.nn.functional.pad(green, (0, width - len(green)))
        return torch.where(green.to(logits.device), logits + self.bias, logits)

    def _green(self, vocab_size: int) -> Tensor:
        return green_list(self.hashing_key, vocab_size, self.greenlist_ratio)

    def detect(self, ids: Sequence[int] | Tensor, *, ignore_repeated_ngrams: bool = True) -> Detection:
        """Look for the mark in a text.

        Args:
            ids: the generated tokens, int64 [T] or a list; a prompt before them only weakens the signal.
            ignore_repeated_ngrams: count each token once. A repetition is no further evidence, and would
                make z too large in texts without the mark.

        Raises:
            ParameterError: vocab_size is not given, or the text has no token.
        """
        if self.vocab_size is None:
            message = "vocab_size=None is not allowed for detect: give the width of the model's logits"
            raise ParameterError(message)
        tokens = as_tokens(ids, 1)
        tokens = list(dict.fromkeys(tokens)) if ignore_repeated_ngrams else tokens
        green = self._green(self.vocab_size).tolist()
        return green_detection([t < len(green) and green[t] for t in tokens], self.greenlist_ratio)

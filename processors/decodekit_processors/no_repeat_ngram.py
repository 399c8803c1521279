"""No repeated n-grams within a window: what was said a while ago may be said again."""

from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Processor, param
from torch import Tensor

__all__ = ["NoRepeatNgram"]


@attrs.frozen
class NoRepeatNgram(Processor):
    """Forbid each token that would complete an n-gram that stands among the last tokens of the row.

    The rule of `no_repeat_ngram_size`, for the last ``window`` tokens and with exemptions: tables and lists
    need their marks again and again. Prompt and generated tokens both count, or the generated ones alone.

    Source: Paulus, Xiong and Socher (2017), arXiv 1705.04304, section 2.5; window and exemptions as in the
        processor of DeepSeek-OCR (2025), arXiv 2510.18234. Its cost doesn't grow with the history.
    Range: ngram_size and window in [0, inf), in tokens; ngram_size 0 changes nothing and window 0 is all;
        exempt_ids are token ids, those beyond the vocabulary are ignored.
    Shape: logits [B, V] -> [B, V].
    Keeps: every token that is exempt or does not complete such an n-gram.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "no_repeat_ngram"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_order=True,
        keeps_ratios=True,
        idempotent=True,
        commutes_with_temperature=True,
        may_empty=True,
    )

    ngram_size: int = param(3, range="[0, inf)", neutral=0, help="n, how many tokens may not come again.")
    window: int = param(0, range="[0, inf)", help="How many of the last tokens are looked at; 0 is all.")
    exempt_ids: tuple[int, ...] = param((), help="Token ids that may complete any n-gram.")
    include_prompt: bool = param(True, help="Whether n-grams that end in the prompt count.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf for the tokens that would repeat an n-gram."""
        n, vocab_size = self.ngram_size, logits.shape[-1]
        tokens = history.tokens[:, -self.window :]  # with window 0 that is all
        counts = history.mask if self.include_prompt else history.generated_mask
        own, last = history.mask[:, -self.window :], counts[:, -self.window :]
        if n == 0 or tokens.shape[1] < n:
            return logits
        windows = tokens.unfold(1, n, 1)  # [B, W - n + 1, n]
        begun = tokens[:, None, tokens.shape[1] - n + 1 :]
        repeats = (windows[..., :-1] == begun).all(dim=-1)
        repeats &= own[:, : tokens.shape[1] - n + 1] & last[:, n - 1 :]
        # What is no repeat, and ids beyond the logits, fall into one more column that is cut off again.
        ids = torch.where(repeats, windows[..., -1].clamp(max=vocab_size), vocab_size)
        forbidden = torch.zeros(len(logits), vocab_size + 1, dtype=torch.bool, device=logits.device)
        forbidden = forbidden.scatter_(1, ids, True)[:, :vocab_size]
        forbidden[:, [token for token in self.exempt_ids if 0 <= token < vocab_size]] = False
        return logits.masked_fill(forbidden, float("-inf"))

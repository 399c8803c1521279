"""No repeated n-grams within a window: what was said a while ago may be said again."""

from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._ngrams import forbid_all

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
    PLACE: ClassVar[Place] = Place(phase=Phase.MASK)

    ngram_size: int = param(3, range="[0, inf)", neutral=0, help="n, how many tokens may not come again.")
    window: int = param(0, range="[0, inf)", help="How many of the last tokens are looked at; 0 is all.")
    exempt_ids: tuple[int, ...] = param((), help="Token ids that may complete any n-gram.")
    include_prompt: bool = param(True, help="Whether n-grams that end in the prompt count.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf for the tokens that would repeat an n-gram."""
        n = self.ngram_size
        if n and not self.window and self.include_prompt:  # which the history keeps up
            ids = history.followers(n)
            exempt = torch.tensor(self.exempt_ids, dtype=torch.long, device=ids.device)
            return forbid_all(logits, ids.masked_fill(torch.isin(ids, exempt), -1))
        tokens = history.tokens[:, -self.window :]  # with window 0 that is all
        counts = history.mask if self.include_prompt else history.generated_mask
        own, last = history.mask[:, -self.window :], counts[:, -self.window :]
        if n == 0 or tokens.shape[1] < n:
            return logits
        windows = tokens.unfold(1, n, 1)  # [B, W - n + 1, n]
        begun = tokens[:, None, tokens.shape[1] - n + 1 :]
        repeats = (windows[..., :-1] == begun).all(dim=-1)
        repeats &= own[:, : tokens.shape[1] - n + 1] & last[:, n - 1 :]
        exempt = torch.tensor(self.exempt_ids, dtype=torch.long, device=tokens.device)
        repeats &= ~torch.isin(windows[..., -1], exempt)
        return forbid_all(logits, torch.where(repeats, windows[..., -1], -1))

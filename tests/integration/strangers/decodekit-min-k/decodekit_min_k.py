"""Min-k sampling as a plugin, written against docs/processors.md alone."""

import attrs
import decodekit as dk
import torch
from torch import Tensor


@attrs.frozen
class MinK(dk.Processor):
    """Cut the sorted logits at their steepest fall, where a fall counts less the further down it is.

    Source: Ding et al. (2026), "Min-k Sampling", arXiv 2604.11012: the fall from rank i to i + 1, over the
        range of the logits, and divided by i.
    Range: min_tokens_to_keep in [1, inf).
    Shape: logits [B, V] -> [B, V]; compared in float32 or better.
    Keeps: the tokens before the largest weighted fall; the same ones at every temperature.
    Raises: ParameterError when min_tokens_to_keep is not in its range.
    """

    NAME = "min_k"
    LAWS = dk.Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        commutes_with_temperature=True,
        nested="min_tokens_to_keep",
    )

    min_tokens_to_keep: int = dk.param(1, range="[1, inf)", help="How many of the largest logits stay.")

    def __call__(self, logits: Tensor, history: dk.History) -> Tensor:
        """Return the logits with -inf after the steepest fall of each row."""
        x = logits.to(torch.promote_types(logits.dtype, torch.float32))
        ordered = x.sort(dim=-1, descending=True).values
        falls = (ordered[:, :-1] - ordered[:, 1:]).nan_to_num(nan=0.0, posinf=0.0)
        ranks = torch.arange(1, x.shape[-1] + 1, device=x.device)
        kept = 1 + (falls / ranks[:-1]).argmax(dim=-1, keepdim=True)  # the range is the same for all ranks
        flat = falls.amax(dim=-1, keepdim=True) == 0  # all finite logits are equal: there is no fall
        kept = kept.masked_fill(flat, x.shape[-1]).clamp(min=self.min_tokens_to_keep)
        least = ordered.gather(-1, kept.clamp(max=x.shape[-1]) - 1)
        return logits.masked_fill(x < least, float("-inf"))


@dk.hookimpl
def register_processors() -> list[type[dk.Processor]]:
    """The processor of this package."""
    return [MinK]

"""XTC (exclude top choices): now and then the obvious tokens are left out."""

from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._common import probabilities

__all__ = ["XTC"]


@attrs.frozen
class XTC(Processor):
    """Take probability from the top choices: all tokens above a threshold but the least probable of them.

    Elsewhere a coin is flipped at each step, and at heads the top choices are removed. Here is the law
    of both together: ``q * (p without them) + (1 - q) * p``, which gives every token, and so every text,
    the same probability, draws nothing, and so works under speculation. It belongs at the end of a chain.
    Tokens tied as the least probable all stay. An EOS that is a top choice is taken from as well, which
    makes texts run on; name it, and perhaps the newline, in exempt_ids.

    Source: p-e-w (2024), text-generation-webui, pull request 6335; the mixture follows from its coin.
    Range: probability in [0, 1], 0 changes nothing; threshold in (0, 0.5], as two tokens can't both have
        more than one half; exempt_ids are token ids, those beyond the vocabulary are ignored.
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Law: with R the top choices and Z the probability of all others, each logit of R falls by
        ``ln((q + (1 - q) Z) / ((1 - q) Z))``; q = 1 removes R.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "xtc"
    LAWS: ClassVar[Laws] = Laws(shift_invariant=True, permutation_equivariant=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.SHAPE, last=True)

    probability: float = param(
        0.5, range="[0, 1]", neutral=0.0, help="q, the share of steps without top choices; 0 is off."
    )
    threshold: float = param(
        0.1, range="(0, 0.5]", help="The probability from which on a token is a top choice."
    )
    exempt_ids: tuple[int, ...] = param((), help="Token ids that never lose, such as EOS and newline.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with those of the top choices lowered."""
        p = probabilities(logits)
        above = (p >= self.threshold) & (p > 0)  # a tiny threshold is 0 in float32
        least = p.masked_fill(~above, torch.inf).amin(dim=-1, keepdim=True)
        removed = above & (p > least)
        removed[:, [token for token in self.exempt_ids if 0 <= token < p.shape[-1]]] = False
        others = (1 - self.probability) * p.masked_fill(removed, 0).sum(dim=-1, keepdim=True)
        change = (others / (self.probability + others)).log()
        return torch.where(removed, logits + change, logits).to(logits.dtype)

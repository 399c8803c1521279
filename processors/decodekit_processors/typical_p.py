"""Locally typical sampling: the tokens whose surprise is nearest to the entropy."""

from typing import ClassVar

import attrs
from decodekit import History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import wide

__all__ = ["TypicalP"]


@attrs.frozen
class TypicalP(Processor):
    """Keep the tokens whose surprise is nearest to the entropy H, until their mass is at least p.

    The most probable token is dropped when it is far less surprising than the row is on average.

    Source: Meister et al. (2022), "Locally Typical Sampling", arXiv 2202.00666, section 4.
    Range: typical_p in (0, 1], often 0.2 to 0.95; 1 changes nothing. min_tokens_to_keep in [1, inf).
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Keeps: the shortest prefix of the order of ``|-ln p_i - H|`` with mass >= p, whatever ties with its
        last, and the min_tokens_to_keep first, of which ties are not kept (as in transformers).
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "typical_p"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_order=True,
        keeps_ratios=True,
        nested="typical_p",
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT)

    typical_p: float = param(
        0.9, range="(0, 1]", neutral=1.0, help="p, the probability mass to keep; 1 keeps all."
    )
    min_tokens_to_keep: int = param(
        1, range="[1, inf)", help="How many of the most typical tokens always stay."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf outside the typical set of each row."""
        if self.typical_p == 1:
            return logits
        x = logits.to(wide(logits))
        logp = x.log_softmax(dim=-1)
        entropy = -(logp * logp.exp()).nansum(dim=-1, keepdim=True)
        distance, order = (-logp - entropy).abs().sort(dim=-1)
        mass = x.gather(-1, order).softmax(dim=-1).cumsum(dim=-1)
        last = (mass < self.typical_p).sum(dim=-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
        dropped = distance > distance.gather(-1, last)
        dropped[:, : self.min_tokens_to_keep] = False
        return logits.masked_fill(dropped.scatter(-1, order, dropped), float("-inf"))

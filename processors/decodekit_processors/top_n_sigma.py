"""Top-nσ: a floor under the logits, some standard deviations below the largest."""

from typing import ClassVar

import attrs
from decodekit import Cut, Head, History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import possible, wide

__all__ = ["TopNSigma"]


@attrs.frozen
class TopNSigma(Processor):
    """Keep the tokens whose logit is at most n standard deviations below the largest.

    σ is the population's, over the possible tokens of the row as they come in, so this belongs before
    other truncations. Some implementations count -inf as 0, or give up on it; here it is absent.
    Temperature moves logits and floor alike: the kept set doesn't depend on it.

    Source: Tang et al. (2024), "Top-nσ: Not All Logits Are You Need", arXiv 2411.07641.
    Range: top_n_sigma in (0, inf), often 1. Zero is refused, as elsewhere it stands for "off".
    Shape: logits [B, V] -> [B, V]; σ in float32 or better.
    Keeps: ``x_i >= max(x) - n * σ``.
    Raises: ParameterError when top_n_sigma is not in its range.
    """

    NAME: ClassVar[str] = "top_n_sigma"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        commutes_with_temperature=True,
        nested="top_n_sigma",
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT, whole=True)

    top_n_sigma: float = param(
        1.0, range="(0, inf)", help="n, how many standard deviations to keep; to keep all, leave it out."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf below the floor of each row."""
        x = logits.to(wide(logits))
        below = x - x.amax(dim=-1, keepdim=True)
        return logits.masked_fill(below < -self.top_n_sigma * _sigma(x), float("-inf"))

    def cut(self, head: Head) -> Cut:
        """Where it cuts, told from the largest logits."""
        return head.near(head.largest - self.top_n_sigma * _sigma(head.whole))


def _sigma(x: Tensor) -> Tensor:
    """The standard deviation of the possible logits of each row, [B, 1]."""
    alive = possible(x)
    below = (x - x.amax(dim=-1, keepdim=True)).masked_fill(~alive, 0)
    count = alive.sum(dim=-1, keepdim=True)
    mean = below.sum(dim=-1, keepdim=True) / count
    variance = ((below - mean) ** 2 * alive).sum(dim=-1, keepdim=True) / count
    return variance.sqrt()

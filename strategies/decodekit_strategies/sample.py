"""Ancestral sampling: each token is drawn from the processed distribution."""

from typing import ClassVar

import attrs
from decodekit import Batch, Strategy, StrategyLaws, verified

__all__ = ["Sample"]


@attrs.frozen
class Sample(Strategy):
    """Draw each token from p(next | tokens so far), after the chain.

    Source: ancestral sampling; Holtzman et al. (2019), arXiv 1904.09751, section 3.2, with the draw as a
        race of exponentials (`decodekit.randomness`).
    Range: no parameters; temperature and the truncations belong to the chain.
    Shape: one forward of one position and one token a row and step; more where a processor forces them.
    Law: lossless: a sequence has the product of its conditional probabilities. Rows at temperature 0
        take the argmax.
    Raises: nothing of its own.
    """

    NAME: ClassVar[str] = "sample"
    LAWS: ClassVar[StrategyLaws] = StrategyLaws(greedy_limit=True, lossless=True)
    SAMPLES: ClassVar[bool] = True
    ADMITS: ClassVar[bool] = True

    def step(self, batch: Batch) -> None:
        """Draw the next token of every row, and what is forced in the same forward pass."""
        drafts = batch.forced()
        p = batch.dist(batch.logits(drafts), drafts)
        batch.commit(verified(drafts, batch.draw(p)), p)

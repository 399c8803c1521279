"""Greedy decoding: always the most probable token."""

from typing import ClassVar

import attrs
from decodekit import Batch, Strategy, StrategyLaws, verified

__all__ = ["Greedy"]


@attrs.frozen
class Greedy(Strategy):
    """Commit the argmax of the processed distribution.

    Source: the standard baseline; e.g. Sutskever et al. (2014), arXiv 1409.3215, section 3.2, beam size 1.
    Range: no parameters.
    Shape: one forward of one position and one token a row and step; more where a processor forces them.
    Law: deterministic; ties go to the lowest id. It is the limit of sampling at temperature 0.
    Raises: nothing of its own.
    """

    NAME: ClassVar[str] = "greedy"
    LAWS: ClassVar[StrategyLaws] = StrategyLaws(deterministic=True, greedy_limit=True)
    ADMITS: ClassVar[bool] = True

    def step(self, batch: Batch) -> None:
        """Take the most probable token of every row, and what is forced in the same forward pass."""
        drafts = batch.forced()
        p = batch.dist(batch.logits(drafts), drafts)
        batch.commit(verified(drafts, p.argmax()), p)

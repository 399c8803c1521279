"""A smaller model of the same vocabulary."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
from decodekit import Batch, Draft, Drafter, DrafterLaws, Pick, param

from decodekit_strategies.drafters._autoregressive import decode_drafts

__all__ = ["DraftModel"]


@attrs.frozen
class DraftModel(Drafter):
    """A smaller model with the target's vocabulary drafts token by token, under the target's own chain.

    Source: Leviathan et al. (2023), arXiv 2211.17192; Chen et al. (2023), arXiv 2302.01318.
    Range: confidence_threshold in [0, 1].
    Shape: one forward of the draft model a drafted token, for all rows at once.
    Law: reports q, the processed distribution of each token.
    Raises: ParameterError when the model has another vocabulary; CapabilityError when its cache can't
        take tokens back.
    """

    NAME: ClassVar[str] = "draft_model"
    LAWS: ClassVar[DrafterLaws] = DrafterLaws(reports_q=True)

    model: Any = param(help="A smaller model of transformers with the same vocabulary.")
    confidence_threshold: float = param(
        0.4, range="[0, 1]", help="A draft ends with a token that the model gives less than this."
    )

    @property
    def models(self) -> Mapping[str, Any]:
        """The draft model."""
        return {"draft": self.model}

    def draft(self, batch: Batch, lengths: Sequence[int], pick: Pick) -> Draft:
        """Decode a few tokens."""
        return decode_drafts(
            batch,
            lengths,
            pick,
            self.confidence_threshold,
            lambda drafts: batch.logits(drafts, session="draft", last=True),
        )

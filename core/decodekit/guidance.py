"""Classifier-free guidance: the distribution is drawn away from a negative prompt."""

import attrs
import torch
from torch import Tensor

from decodekit.session import Session

__all__ = ["Guidance"]


@attrs.frozen(eq=False)
class Guidance:
    """The second stream of a guided call (Sanchez et al. 2023, arXiv 2306.17806, equation 7).

    Attributes:
        scale: 1 is no guidance.
        session: of the same model, fed with the negative prompts and the tokens that were generated.
    """

    scale: float
    session: Session

    def apply(self, logits: Tensor, negative: Tensor) -> Tensor:
        """``u + scale * (c - u)``, where ``c`` and ``u`` are log-probabilities.

        Args:
            logits: [..., V], after the row.
            negative: [..., V], after its negative prompt and the same generated tokens.

        Returns:
            [..., V], float32 or better; what ``logits`` forbid stays forbidden.
        """
        u = negative.log_softmax(-1)
        c = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        return (u + self.scale * (c - u)).masked_fill(c.isneginf(), -torch.inf)

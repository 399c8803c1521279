"""Top-k: the k most probable tokens."""

from typing import ClassVar

import attrs
from decodekit import CallContext, Cut, Head, History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

__all__ = ["TopK"]


@attrs.frozen
class TopK(Processor):
    """Keep the k most probable tokens; tokens tied with the k-th all stay.

    Source: Fan, Lewis and Dauphin (2018), "Hierarchical Neural Story Generation", arXiv 1805.04833,
        section 5.4.
    Range: top_k in [0, inf); 0 switches it off, and k >= V keeps everything.
    Shape: logits [B, V] -> [B, V].
    Keeps: ``x_i >= x_(k)``, where ``x_(k)`` is the k-th largest logit of the row.
    Raises: ParameterError when top_k is not in its range.
    """

    NAME: ClassVar[str] = "top_k"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        idempotent=True,
        commutes_with_temperature=True,
        nested="top_k",
        commutes_with=("min_p", "renormalize_logits", "temperature"),
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TRUNCATION, scope=Scope.SUPPORT)
    BY_ROW: ClassVar[frozenset[str]] = frozenset({"top_k"})

    top_k: int = param(50, range="[0, inf)", neutral=0, help="k, the number of tokens to keep; 0 keeps all.")

    def bind(self, context: CallContext) -> "TopK":
        """Return the processor, switched off where k is the whole vocabulary."""
        return attrs.evolve(self, top_k=0) if self.top_k >= context.vocab_size else self

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf below the k-th largest of each row."""
        if self.top_k == 0:
            return logits
        k = min(self.top_k, logits.shape[-1])
        smallest_kept = logits.topk(k, dim=-1).values[:, -1:]
        return logits.masked_fill(logits < smallest_kept, float("-inf"))

    @property
    def reach(self) -> int:
        """One more than k, for the token that may tie."""
        return self.top_k + 1

    def cut(self, head: Head) -> Cut:
        """Where it cuts, told from the largest logits."""
        return head.best(self.top_k)

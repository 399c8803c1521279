"""No repeated n-grams: nothing of n tokens is said twice."""

from typing import ClassVar

import attrs
from decodekit import History, Laws, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._ngrams import forbid_all

__all__ = ["NoRepeatNgramSize"]


@attrs.frozen
class NoRepeatNgramSize(Processor):
    """Forbid each token that would complete an n-gram that the row already has, prompt included.

    Source: Paulus, Xiong and Socher (2017), "A Deep Reinforced Model for Abstractive Summarization",
        arXiv 1705.04304, section 2.5, for any n. In transformers padding counts as tokens, here not.
    Range: no_repeat_ngram_size in [0, inf), often 3; 0 changes nothing, 1 forbids every token so far.
    Shape: logits [B, V] -> [B, V].
    Keeps: every token that does not complete such an n-gram.
    Raises: ParameterError when no_repeat_ngram_size is not in its range.
    """

    NAME: ClassVar[str] = "no_repeat_ngram_size"
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

    no_repeat_ngram_size: int = param(
        0, range="[0, inf)", neutral=0, help="n, how many tokens may not come again; 0 allows all."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf for the tokens that would repeat an n-gram."""
        if self.no_repeat_ngram_size == 0:
            return logits
        return forbid_all(logits, history.followers(self.no_repeat_ngram_size))

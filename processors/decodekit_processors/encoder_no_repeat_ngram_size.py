"""No n-grams of the prompt: the answer does not copy it."""

from typing import ClassVar

import attrs
from decodekit import CallContext, History, Laws, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._ngrams import forbid_all
from decodekit_processors._sources import check_sources, read_by_encoder

__all__ = ["EncoderNoRepeatNgramSize"]


@attrs.frozen
class EncoderNoRepeatNgramSize(Processor):
    """Forbid each token that would complete an n-gram of the row's prompt.

    Source: transformers, the argument of that name; of a decoder-only model the prompt is what an
        encoder would read, of an encoder-decoder model what it
        does read. In transformers padding counts as tokens, here not.
    Range: encoder_no_repeat_ngram_size in [0, inf); 0 changes nothing, 1 forbids every token of the prompt.
    Shape: logits [B, V] -> [B, V].
    Keeps: every token that does not complete such an n-gram.
    Raises: ParameterError when encoder_no_repeat_ngram_size is not in its range.
    """

    NAME: ClassVar[str] = "encoder_no_repeat_ngram_size"
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

    encoder_no_repeat_ngram_size: int = param(
        0,
        range="[0, inf)",
        neutral=0,
        help="n, how many tokens of the prompt may not come again; 0 allows all.",
    )

    _context: CallContext | None = attrs.field(default=None, repr=False)

    def bind(self, context: CallContext) -> "EncoderNoRepeatNgramSize":
        """Return the processor that knows what an encoder reads."""
        check_sources(self.NAME, context)
        return attrs.evolve(self, context=context if context.sources is not None else None)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with -inf for the tokens that would repeat an n-gram of the prompt."""
        if self.encoder_no_repeat_ngram_size == 0:
            return logits
        n = self.encoder_no_repeat_ngram_size
        return forbid_all(logits, read_by_encoder(history, self._context, n - 1).followers(n, prompt=True))

"""Encoder repetition penalty: tokens of the prompt gain."""

from typing import ClassVar

import attrs
import torch
from decodekit import CallContext, History, Laws, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._common import columns
from decodekit_processors._sources import check_sources, read_by_encoder

__all__ = ["EncoderRepetitionPenalty"]


@attrs.frozen
class EncoderRepetitionPenalty(Processor):
    """Multiply the positive logits of the prompt's tokens by the penalty, and divide the negative ones.

    It is the inverse of the repetition penalty, and for the prompt alone: above 1 the answer stays near
    to the prompt's words. The result depends on where the logits have their zero.

    Source: transformers, the argument of that name ("hallucination penalty"); of a decoder-only model the
        prompt is what an encoder would read, of an encoder-decoder model what it does
        read. In transformers padding counts as a token, here not.
    Range: encoder_repetition_penalty in (0, inf); 1 changes nothing, below 1 the prompt's tokens lose.
    Shape: logits [B, V] -> [B, V].
    Law: ``x_i * θ`` if ``x_i >= 0`` else ``x_i / θ`` for each token i < V of the prompt; the others stay.
    Raises: ParameterError when encoder_repetition_penalty is not in its range.
    """

    NAME: ClassVar[str] = "encoder_repetition_penalty"
    LAWS: ClassVar[Laws] = Laws(permutation_equivariant=True, upper_set=True, commutes_with_temperature=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.PENALTY)

    encoder_repetition_penalty: float = param(
        1.0, range="(0, inf)", neutral=1.0, help="θ; 1 is none, above 1 favours the words of the prompt."
    )

    _context: CallContext | None = attrs.field(default=None, repr=False)

    def bind(self, context: CallContext) -> "EncoderRepetitionPenalty":
        """Return the processor that knows what an encoder reads."""
        check_sources(self.NAME, context)
        return attrs.evolve(self, context=context if context.sources is not None else None)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with those of the prompt's tokens rewarded."""
        # What is no prompt, and ids beyond the logits, fall into one more column that is cut off again.
        vocab_size = logits.shape[-1]
        ids = columns(read_by_encoder(history, self._context, 0).prompt_ids(), vocab_size)
        wide = torch.nn.functional.pad(logits, (0, 1))
        seen = wide.gather(1, ids)
        rewarded = torch.where(
            seen < 0, seen / self.encoder_repetition_penalty, seen * self.encoder_repetition_penalty
        )
        return wide.scatter_(1, ids, rewarded)[:, :vocab_size]

"""Frequency penalty: each time a token was generated costs it the same again."""

from typing import ClassVar

import attrs
from decodekit import History, Laws, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._common import generated_counts

__all__ = ["FrequencyPenalty"]


@attrs.frozen
class FrequencyPenalty(Processor):
    """Lower the logit of each generated token by the penalty times how often it was generated.

    Only generated tokens count, as at OpenAI and in vLLM; llama.cpp counts the prompt's last ones too.

    Source: OpenAI, API reference, ``frequency_penalty``.
    Range: frequency_penalty in [-2, 2], in logits; 0 changes nothing, below 0 repetition is rewarded.
    Shape: logits [B, V] -> [B, V].
    Law: ``x_i - α * c_i``, where c_i counts token i among the generated tokens of the row.
    Raises: ParameterError when frequency_penalty is not in its range.
    """

    NAME: ClassVar[str] = "frequency_penalty"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        upper_set=True,
        commutes_with=("presence_penalty",),
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.PENALTY)
    BY_ROW: ClassVar[frozenset[str]] = frozenset({"frequency_penalty"})

    frequency_penalty: float = param(
        0.0, range="[-2, 2]", neutral=0.0, help="α, what each occurrence costs; 0 is none."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits, less the penalty times the counts."""
        counts = generated_counts(logits, history)
        return (logits - self.frequency_penalty * counts).to(logits.dtype)

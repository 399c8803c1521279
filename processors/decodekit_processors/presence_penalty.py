"""Presence penalty: a token that was generated costs, once."""

from typing import ClassVar

import attrs
from decodekit import History, Laws, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._common import generated_counts

__all__ = ["PresencePenalty"]


@attrs.frozen
class PresencePenalty(Processor):
    """Lower the logit of each generated token by the penalty, however often it was generated.

    Only generated tokens count, as at OpenAI and in vLLM; llama.cpp counts the prompt's last ones too.

    Source: OpenAI, API reference, ``presence_penalty``.
    Range: presence_penalty in [-2, 2], in logits; 0 changes nothing, below 0 repetition is rewarded.
    Shape: logits [B, V] -> [B, V].
    Law: ``x_i - α`` for each token i that the row generated; the others stay.
    Raises: ParameterError when presence_penalty is not in its range.
    """

    NAME: ClassVar[str] = "presence_penalty"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        upper_set=True,
        commutes_with=("frequency_penalty",),
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.PENALTY)
    BY_ROW: ClassVar[frozenset[str]] = frozenset({"presence_penalty"})

    presence_penalty: float = param(
        0.0, range="[-2, 2]", neutral=0.0, help="α, what having occurred costs; 0 is none."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits, less the penalty where a token occurred."""
        seen = generated_counts(logits, history).clamp(max=1)
        return (logits - self.presence_penalty * seen).to(logits.dtype)

"""Repetition penalty: tokens that already occurred lose."""

from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._common import columns

__all__ = ["RepetitionPenalty"]


@attrs.frozen
class RepetitionPenalty(Processor):
    """Divide the positive logits of seen tokens by the penalty, and multiply the negative ones.

    Prompt and generated tokens both count, once each, however often they occurred. The result depends
    on where the logits have their zero, so raw logits and log-probabilities give different laws.

    Source: Keskar et al. (2019), "CTRL", arXiv 1909.05858, section 4.1; the negative case as in transformers.
    Range: repetition_penalty in (0, inf); 1 changes nothing, below 1 repetition is rewarded.
    Shape: logits [B, V] -> [B, V].
    Law: ``x_i / θ`` if ``x_i >= 0`` else ``x_i * θ`` for each seen token i < V; the others stay.
    Raises: ParameterError when repetition_penalty is not in its range.
    """

    NAME: ClassVar[str] = "repetition_penalty"
    LAWS: ClassVar[Laws] = Laws(permutation_equivariant=True, upper_set=True, commutes_with_temperature=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.PENALTY)
    BY_ROW: ClassVar[frozenset[str]] = frozenset({"repetition_penalty"})

    repetition_penalty: float = param(
        1.0, range="(0, inf)", neutral=1.0, help="θ; 1 is none, 1.1 to 1.3 is usual, below 1 is a reward."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with those of seen tokens penalised."""
        # What fills up the ids, and ids beyond the logits, fall into one more column that is cut off again.
        vocab_size = logits.shape[-1]
        ids = columns(history.ids(), vocab_size)
        wide = torch.nn.functional.pad(logits, (0, 1))
        seen = wide.gather(1, ids)
        penalised = torch.where(seen < 0, seen * self.repetition_penalty, seen / self.repetition_penalty)
        return wide.scatter_(1, ids, penalised)[:, :vocab_size]

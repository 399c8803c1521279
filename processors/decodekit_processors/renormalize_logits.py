"""Renormalised logits: log-probabilities at the end of the chain."""

from typing import ClassVar

import attrs
from decodekit import History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import log_probabilities

__all__ = ["RenormalizeLogits"]


@attrs.frozen
class RenormalizeLogits(Processor):
    """Turn the logits into log-probabilities: the law stays as it is, scores can be compared.

    Source: transformers, the argument of that name.
    Range: renormalize_logits is a truth value; False changes nothing.
    Shape: logits [B, V] -> [B, V]; computed in float32 or better.
    Law: ``x_i - ln Σ exp(x)``.
    Raises: ParameterError when renormalize_logits is no truth value.
    """

    NAME: ClassVar[str] = "renormalize_logits"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        idempotent=True,
        commutes_with_temperature=True,
        commutes_with=("min_p", "temperature", "top_k", "top_p"),
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.NORMALIZE, scope=Scope.SUPPORT)

    renormalize_logits: bool = param(True, neutral=False, help="Whether to normalise.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the log-probabilities."""
        return log_probabilities(logits).to(logits.dtype) if self.renormalize_logits else logits

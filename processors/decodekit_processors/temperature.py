"""Temperature: every logit divided by one number."""

from typing import ClassVar

import attrs
from decodekit import History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

__all__ = ["Temperature"]

_SMALLEST = 1e-30
"""Below it ``x / T`` may overflow float32, or T itself becomes 0 there."""


@attrs.frozen
class Temperature(Processor):
    """Divide the logits by T: below 1 the likely tokens gain, above 1 the unlikely ones.

    Source: Ackley, Hinton and Sejnowski (1985), "A learning algorithm for Boltzmann machines", eq. 5.
    Range: temperature in (0, inf); 1 changes nothing. Zero is greedy decoding, a strategy of its own.
    Shape: logits [B, V] -> [B, V].
    Keeps: every token and the order of the tokens.
    Raises: ParameterError when temperature is not in its range.
    """

    NAME: ClassVar[str] = "temperature"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        upper_set=True,
        commutes_with_temperature=True,
        commutes_with=("min_new_tokens", "renormalize_logits", "top_k"),
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TEMPERATURE, scope=Scope.HEAD)
    BY_ROW: ClassVar[frozenset[str]] = frozenset({"temperature"})

    temperature: float = param(
        1.0, range="(0, inf)", neutral=1.0, help="T, the divisor of the logits; for T = 0 decode with greedy."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return ``logits / T``."""
        if isinstance(self.temperature, float) and self.temperature < _SMALLEST:
            return (logits - logits.amax(dim=-1, keepdim=True)) / _SMALLEST  # the same law, without overflow
        return logits / self.temperature

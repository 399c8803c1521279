"""Dynamic temperature: the more undecided a row, the nearer its temperature to the upper end."""

from typing import ClassVar

import attrs
import torch
from decodekit import History, Laws, Phase, Place, Processor, Scope, param
from torch import Tensor

from decodekit_processors._common import possible, probabilities

__all__ = ["DynamicTemperature"]


@attrs.frozen
class DynamicTemperature(Processor):
    """Divide the logits of each row by a temperature that goes with the row's entropy.

    The entropy is taken relative to the largest one that the possible tokens of the row allow; others
    divide by that of the whole vocabulary. A row with one possible token keeps its law. ``high`` below
    ``low`` is allowed: certain rows are then heated, and undecided ones cooled.

    Source: kalomaze (2023), "Dynamic Temperature"; the formula of llama.cpp, pull request 4972.
    Range: low and high in [0.001, inf), both 1 change nothing; exponent in (0, inf).
    Shape: logits [B, V] -> [B, V]; the entropy in float32 or better.
    Keeps: every token and their order. ``x / T`` with ``T = low + (high - low) * (H / ln N) ** exponent``,
        where H is the entropy in nats and N the number of possible tokens.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "dynamic_temperature"
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        upper_set=True,
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.TEMPERATURE, scope=Scope.SUPPORT)

    low: float = param(
        0.5, range="[0.001, inf)", neutral=1.0, help="The temperature of a row that is certain of one token."
    )
    high: float = param(
        1.5, range="[0.001, inf)", neutral=1.0, help="The temperature of a row that knows nothing."
    )
    exponent: float = param(
        1.0, range="(0, inf)", help="Above 1, temperatures stay near low longer; below 1, near high."
    )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits divided by the temperature of their row."""
        entropy: Tensor = torch.special.entr(probabilities(logits)).sum(dim=-1, keepdim=True)
        count = possible(logits).sum(dim=-1, keepdim=True)
        share = (entropy / count.clamp(min=2).to(entropy.dtype).log()).clamp(max=1)
        temperature = self.low + (self.high - self.low) * share.pow(self.exponent)
        return (logits / temperature).to(logits.dtype)

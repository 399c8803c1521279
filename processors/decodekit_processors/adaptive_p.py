"""Adaptive-p: tokens near a target probability, which moves against what was chosen so far."""

from typing import ClassVar

import attrs
from decodekit import History, Laws, Phase, Place, Scope, StatefulProcessor, param
from torch import Tensor

from decodekit_processors._common import log_probabilities, possible, probabilities

__all__ = ["AdaptiveP"]

_WIDTH = 0.3
"""The distance from the target, in probability, at which a logit has fallen by 5."""


@attrs.frozen
class AdaptiveP(StatefulProcessor[float]):
    """Prefer tokens with a probability near a target, so that the chosen ones have it on average.

    The state of a row is the moving average of the probabilities that the chosen tokens had on coming
    in; it begins at the target. The new logits depend on the distance alone, so this belongs at the end
    of a chain, behind a truncation that removes what should never be drawn.

    Source: llama.cpp, pull request 17927, with its constants: width 0.3, peak 5, sharpness 10.
    Range: target in [0, 1], a probability; decay in [0, 0.99], about 1 / (1 - decay) tokens are remembered.
    Shape: logits [B, V] -> [B, V]; probabilities in float32 or better.
    Law: ``5 - 10 d² / (1 + d)`` with ``d = |p_i - a| / 0.3`` and ``a = min(1, max(0, 2 target - average))``.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "adaptive_p"
    LAWS: ClassVar[Laws] = Laws(shift_invariant=True, permutation_equivariant=True, upper_set=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.SHAPE, scope=Scope.SUPPORT, last=True, rival="surprise")

    target: float = param(
        0.5, range="[0, 1]", help="The probability to aim at; leave the processor out for off."
    )
    decay: float = param(0.9, range="[0, 0.99]", help="How much of the average a new token leaves as it was.")

    def init(self, prompt: list[int]) -> float:
        """Return the average before the first generated token: the target."""
        return self.target

    def process(self, logits: Tensor, history: History, states: list[float]) -> Tensor:
        """Return logits that fall with the distance from the moved target."""
        p = probabilities(logits)
        moved = (2 * self.target - p.new_tensor(states)[:, None]).clamp(0, 1)
        d = (p - moved).abs() / _WIDTH
        return (5 - 10 * d * d / (1 + d)).masked_fill(~possible(logits), float("-inf")).to(logits.dtype)

    def memory(self, logits: Tensor, processed: Tensor) -> Tensor:
        """Return the log-probabilities on coming in, which the result doesn't tell."""
        return log_probabilities(logits)

    def advance(self, state: float, token: int, logits: Tensor) -> float:
        """Return the average with the token's probability in it."""
        return self.decay * state + (1 - self.decay) * float(logits[token].exp())

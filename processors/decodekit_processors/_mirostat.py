"""What both versions of mirostat share: their parameters, and how μ follows the surprise."""

import math

import attrs
import torch
from decodekit import StatefulProcessor, param
from torch import Tensor

__all__ = ["Mirostat"]


@attrs.frozen
class Mirostat(StatefulProcessor[float]):
    """A truncation steered by the surprise of the tokens; the state of a row is μ, in bits."""

    tau: float = param(5.0, range="(0, inf)", help="τ, the surprise to aim at, in bits a token.")
    eta: float = param(0.1, range="(0, 1]", help="η, the share of an error that is corrected in one step.")

    def init(self, prompt: list[int]) -> float:
        """Return μ before the first generated token: 2τ."""
        return 2 * self.tau

    def advance(self, state: float, token: int, logits: Tensor) -> float:
        """Return ``μ - η * (S - τ)``, S the token's surprise in bits among the tokens that were kept."""
        surprise = -float(torch.log_softmax(logits.double(), dim=-1)[token]) / math.log(2)
        return state - self.eta * (surprise - self.tau)

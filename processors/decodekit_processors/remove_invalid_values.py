"""Invalid values removed: NaN and infinities become numbers."""

from typing import ClassVar

import attrs
from decodekit import History, Laws, Phase, Place, Processor, param
from torch import Tensor

__all__ = ["RemoveInvalidValues"]


@attrs.frozen
class RemoveInvalidValues(Processor):
    """Turn NaN into 0, and infinities into the largest and smallest number of the dtype.

    A call with it in its chain goes on where the model's logits are damaged, which is an error otherwise.
    In a chain of your own it belongs before whatever sorts or sums the logits. A forbidden token becomes
    possible again, with probability 0 unless all others are forbidden as well.

    Source: transformers, the argument of that name.
    Range: remove_invalid_values is a truth value; False changes nothing.
    Shape: logits [B, V] -> [B, V].
    Law: NaN -> 0, +inf -> the largest number, -inf -> the smallest; numbers stay.
    Raises: ParameterError when remove_invalid_values is no truth value.
    """

    NAME: ClassVar[str] = "remove_invalid_values"
    CLEANS: ClassVar[bool] = True
    LAWS: ClassVar[Laws] = Laws(
        shift_invariant=True,
        permutation_equivariant=True,
        keeps_argmax=True,
        keeps_order=True,
        keeps_ratios=True,
        upper_set=True,
        idempotent=True,
        may_revive=True,
    )
    PLACE: ClassVar[Place] = Place(phase=Phase.CLEAN)

    remove_invalid_values: bool = param(True, neutral=False, help="Whether to remove them.")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits as numbers."""
        return logits.nan_to_num() if self.remove_invalid_values else logits

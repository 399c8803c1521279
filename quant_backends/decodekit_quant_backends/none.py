"""No quantization: the weights as they are."""

import attrs
from decodekit import QuantBackend, QuantLaws

__all__ = ["NoQuantization"]


@attrs.frozen
class NoQuantization(QuantBackend):
    """Load the model unquantized, in the dtype that `decodekit.load` was asked for.

    Source: none; this is plain ``from_pretrained``.
    Range: no options.
    Needs: nothing.
    Law: the logits are those of the model itself, bit for bit.
    Raises: nothing.
    """

    NAME = "none"
    LAWS = QuantLaws(kl=0.0, noise=1e-4, saves=True)

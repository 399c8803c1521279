"""Logit bias: a number added to the logits of chosen tokens."""

from typing import ClassVar

import attrs
import torch
from decodekit import CallContext, History, Laws, ParameterError, Phase, Place, Processor, param
from torch import Tensor

from decodekit_processors._common import wide

__all__ = ["LogitBias"]

_LARGEST = 100.0


@attrs.frozen
class LogitBias(Processor):
    """Add a bias to the logits of some tokens: -100 all but forbids one, 100 all but forces it.

    Source: OpenAI, API reference, ``logit_bias``.
    Range: logit_bias is a dictionary ``{id: bias}`` or pairs, on the command line ``[[id, bias], ...]``;
        ids in [0, V), biases in [-100, 100], in logits. Empty, it changes nothing; an id named twice
        gets the sum.
    Shape: logits [B, V] -> [B, V].
    Law: ``x_i + b_i``; -inf stays -inf.
    Raises: ParameterError when a bias is not in its range, or, at the start of a call, an id has no logit.
    """

    NAME: ClassVar[str] = "logit_bias"
    LAWS: ClassVar[Laws] = Laws(shift_invariant=True, upper_set=True)
    PLACE: ClassVar[Place] = Place(phase=Phase.BIAS)

    logit_bias: tuple[tuple[int, float], ...] = param(
        (), neutral=(), help="A bias in [-100, 100] for each token id, e.g. {42: -100}."
    )

    def __attrs_post_init__(self) -> None:
        """Refuse a bias that is out of range."""
        for token, bias in self.logit_bias:
            if not -_LARGEST <= bias <= _LARGEST:
                message = f"logit_bias={{{token}: {bias}}} is not allowed: a bias must be in [-100, 100]"
                raise ParameterError(message)

    def bind(self, context: CallContext) -> "LogitBias":
        """Return the processor; refuse ids that this vocabulary doesn't have."""
        for token, bias in self.logit_bias:
            if not 0 <= token < context.vocab_size:
                message = (
                    f"logit_bias={{{token}: {bias}}} names no token of this model: "
                    f"ids must be in [0, {context.vocab_size})"
                )
                raise ParameterError(message)
        return self

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Return the logits with the biases added."""
        ids = torch.tensor([token for token, _ in self.logit_bias], dtype=torch.long, device=logits.device)
        biases = torch.tensor([bias for _, bias in self.logit_bias], dtype=wide(logits), device=logits.device)
        added = biases.new_zeros(logits.shape[-1]).index_add_(0, ids, biases)
        return (logits + added).to(logits.dtype)

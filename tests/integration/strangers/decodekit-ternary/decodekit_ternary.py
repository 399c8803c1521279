"""Ternary weights as a plugin, written against docs/quantization.md alone."""

from typing import Any

import attrs
import decodekit as dk
import torch
from torch import Tensor, nn


class TernaryLinear(nn.Module):
    """A linear layer whose weight is -1, 0 or 1 (int8 [out, in]) times one scale."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.float().abs().mean().clamp(min=1e-8)
        self.register_buffer("weight", (weight.float() / scale).round().clamp(-1, 1).to(torch.int8))
        self.register_buffer("scale", scale.to(weight.dtype))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Multiply with the ternary weight in the dtype of ``x``."""
        return nn.functional.linear(x, self.weight.to(x.dtype), None) * self.scale.to(x.dtype) + (
            0 if self.bias is None else self.bias
        )


@attrs.frozen
class Ternary(dk.QuantBackend):
    """Round each linear weight to -1, 0 or 1 times the mean of its absolute values.

    Source: Ma et al. (2024), "The Era of 1-bit LLMs", arXiv 2402.17764, section 2, equations 1 to 3.
    Range: no options.
    Law: a quarter of the bytes of float32; a model that was not trained for it loses much.
    Raises: nothing of its own.
    Needs: no library beside torch.
    """

    NAME = "ternary"

    def convert(self, model: Any) -> Any:
        """Replace the linear layers, but for the one that gives the logits."""
        head = model.get_output_embeddings()
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear and child is not head:
                    setattr(parent, name, TernaryLinear(child))
        return model


@dk.hookimpl
def register_quant_backends() -> list[type[dk.QuantBackend]]:
    """The backend of this package."""
    return [Ternary]

"""The arithmetic of a compiled pass: written so that torch's compiler reads every weight once, as it lies.

A product of a weight with a few tokens is bound by the weight's way through memory. Library calls convert
the weight first, or wait on each other; written out as one sum a token, the compiler makes a single loop
over the weight, which converts in registers and serves all tokens at once.
"""

from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from decodekit.kernels import NotCompilableError

__all__ = [
    "Streamable",
    "StreamedLinear",
    "accumulator",
    "attention",
    "is_plain_linear",
    "is_streamable",
    "written_out",
]


@runtime_checkable
class Streamable(Protocol):
    """A linear layer that knows how to be read once, e.g. a quantized one."""

    def stream(self, x: Tensor) -> Tensor:
        """The products [n, N] of its weight with n tokens ``x`` [n, K], float32; its bias is not added.

        They are compiled for one n: a sum over K for each token makes one loop over the weight, which serves
        all of them. What is computed of ``x`` first and used for every row belongs into `written_out`.
        """


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type that products are summed in: float32, or the wider one."""
    return torch.promote_types(dtype, torch.float32)


def written_out(x: Tensor) -> Tensor:
    """The same values, which torch's compiler is to write out: else it computes them again for every use."""
    x = x.contiguous()
    return torch.as_strided(x, x.shape, x.stride())


def is_plain_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer with an ordinary weight."""
    return type(module) in (nn.Linear, Conv1D) and type(module.weight) is nn.Parameter


def is_streamable(module: nn.Module) -> bool:
    """Whether `StreamedLinear` can stand in for a module."""
    return is_plain_linear(module) or isinstance(module, Streamable)


class StreamedLinear(nn.Module):
    """Another linear layer on at most ``slots`` tokens.

    Attributes:
        linear: the other one.
        slots: for how many tokens the compiled loop is; set before it is traced.
    """

    def __init__(self, linear: nn.Module) -> None:
        """Stand in for a `is_streamable` module."""
        super().__init__()
        self.linear = linear
        self.slots = 1

    def forward(self, x: Tensor) -> Tensor:
        """[..., N] from [..., K]."""
        rows = x.reshape(-1, x.shape[-1])
        count = rows.shape[0]
        wide = rows.to(accumulator(x.dtype))
        if not isinstance(count, int) or count < self.slots:
            wide = nn.functional.pad(wide, (0, 0, 0, self.slots - count))
        wide = written_out(wide)
        products = self._products(wide)[:count]
        bias = getattr(self.linear, "bias", None)
        result = products if bias is None else products + bias
        return cast("Tensor", result.to(x.dtype).reshape(*x.shape[:-1], -1))

    def _products(self, x: Tensor) -> Tensor:
        if isinstance(self.linear, Conv1D):
            weight = self.linear.weight.to(x.dtype)
            return torch.stack([(weight * token[:, None]).sum(0) for token in x])
        if isinstance(self.linear, nn.Linear):
            weight = self.linear.weight.to(x.dtype)
            return torch.stack([(weight * token).sum(-1) for token in x])
        return cast("Streamable", self.linear).stream(x)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a few queries in plain sums, in transformers' interface for attention functions.

    Args:
        module: the attention layer; not used.
        query: [B, H, n, D].
        key, value: [B, G, W, D], where H is a multiple of G.
        attention_mask: bool [B, 1, n, W], which columns are seen.
        scaling: of the scores; left out, one over the root of D.
        dropout: not used; models are in eval mode.
        softcap: scores are squeezed into (-softcap, softcap) by tanh.
        **kwargs: what models pass to every attention function.

    Returns:
        [B, n, H, D], and None in the place of the attentions.

    Raises:
        NotCompilableError: a further argument that changes the result, such as sinks.
    """
    if kwargs.get("s_aux") is not None or kwargs.get("head_mask") is not None:
        message = "its attention has sinks or a mask of heads"
        raise NotCompilableError(message)
    batch, heads, count, size = query.shape
    groups = key.shape[1]
    kind = accumulator(query.dtype)
    query = query.to(kind) * (scaling if scaling is not None else size**-0.5)
    query = written_out(query.reshape(batch, groups, heads // groups, count, size))
    scores = (query[..., None, :] * key[:, :, None, None].to(kind)).sum(-1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~attention_mask[:, :, None], torch.finfo(kind).min)
    weights = written_out(torch.softmax(scores, dim=-1))
    result = (weights[..., None] * value[:, :, None, None].to(kind)).sum(-2)
    return result.reshape(batch, heads, count, -1).to(value.dtype).transpose(1, 2), None

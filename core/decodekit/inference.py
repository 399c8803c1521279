"""Whether steps may run in torch's inference mode, and how the model is left as it was afterwards.

Without autograd's bookkeeping a small operation costs a tenth less. The price is that what an operation makes
in that mode can't take part in autograd later, so that it is for calls of which no tensor gets out.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from decodekit.keep import Keep
from decodekit.strategy import Strategy
from decodekit.transformers_hooks import is_hooked

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["inferring", "wash"]


def inferring(model: "PreTrainedModel", strategy: Strategy, keep: Keep) -> "list[PreTrainedModel]":
    """The models of a call, if its steps may run in inference mode and nobody could tell; or none.

    It is asked for calls that show no tensors to functions of the caller's, and return no cache.
    """
    if strategy.GRADIENTS or keep.scores or keep.logits or keep.traces or keep.cache:
        return []
    models = [model, *strategy.models.values(), *strategy.foreign_models.values()]
    models += [strategy.heads] if strategy.heads is not None else []
    return models if all(_is_plain(each) for each in models) else []


def _is_plain(model: "PreTrainedModel") -> bool:
    """Whether a model is made of ordinary modules and parameters that nobody watches."""
    if model.training or torch.is_autocast_enabled(model.device.type):
        return False
    return not any(map(_is_watched, model.modules()))


def _is_watched(part: nn.Module) -> bool:
    """Whether a module has hooks, or weights of a kind of their own."""
    weights = (type(value) for value in part._parameters.values() if value is not None)
    return is_hooked(part) or any(kind is not nn.Parameter for kind in weights)


def wash(models: "Iterable[PreTrainedModel]") -> None:
    """Put ordinary tensors in the place of those that modules have made for themselves in inference mode.

    E.g. the frequencies of rotary embeddings that grow with the text.
    """
    for model in models:
        for module in model.modules():
            for held in (module.__dict__, module._buffers):
                for name, value in held.items():
                    # `isinstance` of a tensor is slow, and parameters are none of these.
                    if type(value) is Tensor and value.is_inference():
                        held[name] = value.clone()

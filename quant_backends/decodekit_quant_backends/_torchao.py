"""What the backends on torchao share: requirements, configuration, and a look at what was quantized."""

import re
from typing import TYPE_CHECKING, Any

import torch
from decodekit import CapabilityError

from decodekit_quant_backends._linears import check_skipped, is_skipped

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["REQUIRES", "check_converted", "load_kwargs"]

REQUIRES = {"torchao": "torchao>=0.18", "accelerate": "accelerate>=1.10"}


def load_kwargs(quant_type: Any, skip_modules: tuple[str, ...]) -> dict[str, Any]:
    """The keyword arguments of ``from_pretrained`` for a configuration of torchao."""
    from transformers import TorchAoConfig

    # An explicit list replaces the default one, and a quantized lm_head would lose its tied embedding.
    # The names are matched as patterns, from the start, against the names of weights.
    skip = ["lm_head", *(rf"(.*\.)?{re.escape(name)}" for name in skip_modules)] if skip_modules else None
    return {"quantization_config": TorchAoConfig(quant_type, modules_to_not_convert=skip)}


def check_converted(model: "PreTrainedModel", skip_modules: tuple[str, ...], group_size: int) -> None:
    """Refuse a layer whose width the groups don't divide: torchao leaves it as it was.

    Raises:
        CapabilityError: names the layer.
        ParameterError: the model has no module of a name in ``skip_modules``.
    """
    check_skipped(model, skip_modules)
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        skipped = module is head or is_skipped(name, skip_modules)
        if isinstance(module, torch.nn.Linear) and not skipped and module.in_features % group_size:
            message = (
                f"group_size={group_size} does not divide the {module.in_features} inputs of {name}: "
                "take a smaller group_size, or name the module in skip_modules"
            )
            raise CapabilityError(message)

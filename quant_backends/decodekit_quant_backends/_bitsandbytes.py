"""What the backends on bitsandbytes share: requirements, options, and its log messages."""

import logging
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import torch
from decodekit import CapabilityError, QuantBackend, param

from decodekit_quant_backends._linears import check_skipped

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["REQUIRES", "BitsAndBytes4Bit", "load_kwargs"]

REQUIRES = {"bitsandbytes": "bitsandbytes>=0.50", "accelerate": "accelerate>=1.10"}
_DTYPES = ("float32", "bfloat16", "float16")
_BLOCK, _PACK = 64, 32  # weights that share a scale; rows that a CPU's kernel takes at once

# Messages of bitsandbytes that say once per layer and step, or at import, what our docstrings say.
_KNOWN = {
    "bitsandbytes.autograd._functions": "MatMul8bitLt: inputs will be cast",
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
}


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_KNOWN[record.name])


def load_kwargs(skip_modules: tuple[str, ...], **settings: Any) -> dict[str, Any]:
    """The keyword arguments of ``from_pretrained`` for these settings of ``BitsAndBytesConfig``."""
    from transformers import BitsAndBytesConfig

    for name in _KNOWN:
        logging.getLogger(name).addFilter(_is_news)  # adding the same filter again changes nothing
    # An explicit list replaces the default one, and a quantized lm_head would lose its tied embedding.
    skip = ["lm_head", *skip_modules] if skip_modules else None
    config = BitsAndBytesConfig(llm_int8_skip_modules=skip, **settings)
    return {"quantization_config": config}


@attrs.frozen
class BitsAndBytes4Bit(QuantBackend):
    """The 4-bit backends but for their code book: blocks of 64 weights with one scale each."""

    REQUIRES = REQUIRES
    _CODE: ClassVar[str] = ""

    compute_dtype: str | None = param(
        None, choices=_DTYPES, help="The dtype of the matrix products; None takes the model's."
    )
    double_quant: bool = param(False, help="Quantize the scales too: 4.13 bits a weight instead of 4.5.")
    storage_dtype: str = param(
        "uint8",
        choices=("uint8", *_DTYPES),
        help="The dtype that holds the packed weights, e.g. for sharding.",
    )
    skip_modules: tuple[str, ...] = param(
        (), help="Names of modules that stay unquantized, as the output layer always does."
    )

    def load_kwargs(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """``quantization_config`` for ``from_pretrained``; ``dtype`` is that of the rest of the model."""
        return load_kwargs(
            self.skip_modules,
            load_in_4bit=True,
            bnb_4bit_quant_type=self._CODE,
            bnb_4bit_compute_dtype=self.compute_dtype or dtype,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_quant_storage=self.storage_dtype,
        )

    def convert(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The model as it is, once it has no layer with which a CPU's kernels go wrong.

        Raises:
            CapabilityError: the blocks of a layer on a CPU cross its rows.
            ParameterError: the model has no module of a name in ``skip_modules``.
        """
        check_skipped(model, self.skip_modules)
        for name, module in model.named_modules():
            if type(module).__name__ == "Linear4bit" and module.weight.device.type == "cpu":
                _check_width(name, module)
        return model


def _check_width(name: str, module: Any) -> None:
    """bitsandbytes 0.50 reads such weights with the scales of other blocks, or fails at the first forward."""
    wrong = None
    if module.in_features % _BLOCK:
        wrong = f"the {module.in_features} inputs of {name} are no multiple of {_BLOCK}"
    elif module.support_avx512bf16_for_cpu and module.out_features % _PACK:
        wrong = f"the {module.out_features} outputs of {name} are no multiple of {_PACK}"
    if wrong:
        message = f"4 bits on a CPU: {wrong}. Name the module in skip_modules, or take torchao-int8"
        raise CapabilityError(message)

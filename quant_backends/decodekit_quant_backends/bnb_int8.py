"""8-bit integer weights with outlier columns in half precision, by bitsandbytes."""

from typing import TYPE_CHECKING, Any

import attrs
import torch
from decodekit import QuantBackend, QuantLaws, param

from decodekit_quant_backends._bitsandbytes import REQUIRES, load_kwargs
from decodekit_quant_backends._linears import check_skipped

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["BnbInt8"]


@attrs.frozen
class BnbInt8(QuantBackend):
    """Multiply in int8 with one scale a row, and the columns of outlier activations in half precision.

    Source: Dettmers et al. 2022, "LLM.int8()", arXiv:2208.07339, sections 3.1 and 3.2.
    Range: threshold in [0, inf); skip_modules any names of modules.
    Needs: bitsandbytes and accelerate, on a CPU or a CUDA device.
    Law: the forward is deterministic. A linear weight takes 8 bits; activations are rounded to
        float16 and then to int8; embeddings, norms, biases and the output layer keep their values.
        A column is an outlier if any row of the batch makes it one, so rows depend on each other a little.
    Raises: MissingLibraryError, when a library is not installed; the message has the install line.
        ParameterError, when the model has no module of a name in skip_modules.
    """

    NAME = "bnb-int8"
    REQUIRES = REQUIRES
    LAWS = QuantLaws(bits=8.7, kl=0.01, noise=0.3, saves=True)

    threshold: float = param(
        6.0, range="[0, inf)", help="Activations of at least this size are outliers; 0 looks for none."
    )
    skip_modules: tuple[str, ...] = param(
        (), help="Names of modules that stay unquantized, as the output layer always does."
    )

    def load_kwargs(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """``quantization_config`` for ``from_pretrained``; int8 has no use for ``dtype``."""
        return load_kwargs(self.skip_modules, load_in_8bit=True, llm_int8_threshold=self.threshold)

    def convert(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The model as it is, once all that was to be skipped is there."""
        check_skipped(model, self.skip_modules)
        return model

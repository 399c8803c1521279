"""4-bit NormalFloat weights, by bitsandbytes."""

import attrs
from decodekit import QuantLaws

from decodekit_quant_backends._bitsandbytes import BitsAndBytes4Bit

__all__ = ["BnbNf4"]


@attrs.frozen
class BnbNf4(BitsAndBytes4Bit):
    """Round each linear weight to one of 16 quantiles of a normal law, in blocks of 64 with one scale.

    Source: Dettmers et al. 2023, "QLoRA", arXiv:2305.14314, section 3 (NF4, double quantization).
    Range: compute_dtype None, float32, bfloat16 or float16; double_quant true or false; storage_dtype
        uint8 or one of the three; skip_modules any names of modules.
    Needs: bitsandbytes and accelerate, on a CPU or a CUDA device.
    Law: the forward is deterministic. A linear weight takes 4.5 bits (4.13 with double_quant);
        embeddings, norms, biases and the output layer keep their dtype and values. A CPU with
        AVX512-BF16 repacks at the first forward, to 4.25 bits and products in bfloat16.
    Raises: MissingLibraryError, when a library is not installed; the message has the install line.
        CapabilityError, for a layer on a CPU whose inputs are no multiple of 64.
        ParameterError, when the model has no module of a name in skip_modules.
    """

    NAME = "bnb-nf4"
    LAWS = QuantLaws(bits=4.7, kl=0.2, noise=0.05, saves=True)
    _CODE = "nf4"

"""4-bit floating-point weights, by bitsandbytes."""

import attrs
from decodekit import QuantLaws

from decodekit_quant_backends._bitsandbytes import BitsAndBytes4Bit

__all__ = ["BnbFp4"]


@attrs.frozen
class BnbFp4(BitsAndBytes4Bit):
    """Round each linear weight to a 4-bit float (sign, two exponent bits, one of mantissa), in blocks of 64.

    Source: Dettmers and Zettlemoyer 2023, "The case for 4-bit precision", arXiv:2212.09720, section 2.
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

    NAME = "bnb-fp4"
    LAWS = QuantLaws(bits=4.7, kl=0.35, noise=0.05, saves=True)
    _CODE = "fp4"

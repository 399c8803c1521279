"""Registers the quantization backends of this package, as any third party's plugin would."""

from decodekit import QuantBackend, hookimpl

from decodekit_quant_backends.bnb_fp4 import BnbFp4
from decodekit_quant_backends.bnb_int8 import BnbInt8
from decodekit_quant_backends.bnb_nf4 import BnbNf4
from decodekit_quant_backends.int4 import Int4
from decodekit_quant_backends.int8 import Int8
from decodekit_quant_backends.none import NoQuantization
from decodekit_quant_backends.torchao_int4 import TorchaoInt4
from decodekit_quant_backends.torchao_int8 import TorchaoInt8
from decodekit_quant_backends.torchao_int8_dynamic import TorchaoInt8Dynamic

__all__ = ["register_quant_backends"]


@hookimpl
def register_quant_backends() -> list[type[QuantBackend]]:
    """The backends, in the order of their names."""
    return [BnbFp4, BnbInt8, BnbNf4, Int4, Int8, NoQuantization, TorchaoInt4, TorchaoInt8, TorchaoInt8Dynamic]

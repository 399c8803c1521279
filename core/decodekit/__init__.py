"""decodekit: a plugin-based decoding framework for Hugging Face models."""

from decodekit.errors import (
    CapabilityError,
    DamagedCacheError,
    DecodekitError,
    DuplicateNameError,
    EmptySupportError,
    MissingLibraryError,
    ModelNotFoundError,
    NonFiniteLogitsError,
    ParameterError,
    PluginError,
    UnknownNameError,
    UnsupportedArgumentError,
)
from decodekit.history import History
from decodekit.hookspecs import hookimpl
from decodekit.params import param, params_of
from decodekit.processor import CallContext, Laws, Processor, StatefulProcessor
from decodekit.quant_backend import QuantBackend
from decodekit.strategy import Capability, Strategy, StrategyLaws

__version__ = "0.1.0"

__all__ = [
    "CallContext",
    "Capability",
    "CapabilityError",
    "DamagedCacheError",
    "DecodekitError",
    "DuplicateNameError",
    "EmptySupportError",
    "History",
    "Laws",
    "MissingLibraryError",
    "ModelNotFoundError",
    "NonFiniteLogitsError",
    "ParameterError",
    "PluginError",
    "Processor",
    "QuantBackend",
    "StatefulProcessor",
    "Strategy",
    "StrategyLaws",
    "UnknownNameError",
    "UnsupportedArgumentError",
    "__version__",
    "hookimpl",
    "param",
    "params_of",
]

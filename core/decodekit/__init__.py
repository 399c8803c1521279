"""decodekit: a plugin-based decoding framework for Hugging Face models."""

from decodekit import quiet as quiet  # before transformers is imported

# isort: split
from decodekit import adapters
from decodekit.as_custom_generate import as_custom_generate
from decodekit.batch import Batch
from decodekit.batch_results import Completion, PromptResult
from decodekit.blocks import verified
from decodekit.chain import Chain
from decodekit.distribution import Distribution
from decodekit.drafter import Draft, Drafter, DrafterLaws, Pick
from decodekit.drop_in import drop_in
from decodekit.errors import (
    CapabilityError,
    DamagedCacheError,
    DecodekitError,
    DecodekitWarning,
    DuplicateNameError,
    EmptySupportError,
    MissingLibraryError,
    ModelNotFoundError,
    ModelTooLargeError,
    NonFiniteLogitsError,
    OutputError,
    ParameterError,
    PluginError,
    TrustError,
    UnknownNameError,
    UnsupportedArgumentError,
)
from decodekit.forward import Forward
from decodekit.generate import generate
from decodekit.generate_batch import generate_batch, stream_batch
from decodekit.head import Cut, Head
from decodekit.history import History
from decodekit.hookspecs import hookimpl
from decodekit.load import load, model_bytes
from decodekit.outputs import (
    GenerateBeamEncoderDecoderOutput,
    GenerateBeamOutput,
    GenerateEncoderDecoderOutput,
    GenerateOutput,
    Stats,
)
from decodekit.params import param, params_of
from decodekit.place import Phase, Place, Scope
from decodekit.processor import CallContext, Laws, Processor, StatefulProcessor
from decodekit.quant_backend import QuantBackend, QuantLaws
from decodekit.randomness import Purpose
from decodekit.registry import drafters, processors, quant_backends, register, resolve, strategies
from decodekit.row import Row
from decodekit.strategy import Capability, Strategy, StrategyLaws
from decodekit.stream import FinishedEvent, ResultEvent, TokenEvent, stream
from decodekit.streamed import Streamable, written_out
from decodekit.wide import wide_product

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "CallContext",
    "Capability",
    "CapabilityError",
    "Chain",
    "Completion",
    "Cut",
    "DamagedCacheError",
    "DecodekitError",
    "DecodekitWarning",
    "Distribution",
    "Draft",
    "Drafter",
    "DrafterLaws",
    "DuplicateNameError",
    "EmptySupportError",
    "FinishedEvent",
    "Forward",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateBeamOutput",
    "GenerateEncoderDecoderOutput",
    "GenerateOutput",
    "Head",
    "History",
    "Laws",
    "MissingLibraryError",
    "ModelNotFoundError",
    "ModelTooLargeError",
    "NonFiniteLogitsError",
    "OutputError",
    "ParameterError",
    "Phase",
    "Pick",
    "Place",
    "PluginError",
    "Processor",
    "PromptResult",
    "Purpose",
    "QuantBackend",
    "QuantLaws",
    "ResultEvent",
    "Row",
    "Scope",
    "StatefulProcessor",
    "Stats",
    "Strategy",
    "StrategyLaws",
    "Streamable",
    "TokenEvent",
    "TrustError",
    "UnknownNameError",
    "UnsupportedArgumentError",
    "__version__",
    "adapters",
    "as_custom_generate",
    "drafters",
    "drop_in",
    "generate",
    "generate_batch",
    "hookimpl",
    "load",
    "model_bytes",
    "param",
    "params_of",
    "processors",
    "quant_backends",
    "register",
    "resolve",
    "strategies",
    "stream",
    "stream_batch",
    "verified",
    "wide_product",
    "written_out",
]

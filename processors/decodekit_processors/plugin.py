"""Registers the processors of this package, as any third party's plugin would."""

from decodekit import Processor, hookimpl

from decodekit_processors.min_new_tokens import MinNewTokens
from decodekit_processors.min_p import MinP
from decodekit_processors.repetition_penalty import RepetitionPenalty
from decodekit_processors.temperature import Temperature
from decodekit_processors.top_k import TopK
from decodekit_processors.top_p import TopP


@hookimpl
def register_processors() -> list[type[Processor]]:
    """The built-in processors, in the order of their names."""
    return [MinNewTokens, MinP, RepetitionPenalty, Temperature, TopK, TopP]

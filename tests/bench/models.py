"""The models and texts of ``make bench``, and the bytes that a token takes."""

import functools
from collections.abc import Callable
from typing import Any

import decodekit as dk
from decodekit.load import model_bytes

__all__ = ["COPY", "STORY", "briefly", "cache_bytes", "loaded", "read_bytes", "weights"]

STORY = "Once upon a time, in a small village by the sea, there lived"
COPY = "Repeat this list exactly: red, green, blue, white, black, yellow, orange, purple, brown, pink.\n" * 3


def briefly(*calls: Callable[..., Any]) -> Callable[[], None]:
    """A function that makes the calls with a few tokens, for what is made at the first one."""

    def brief() -> None:
        for call in calls:
            call(max_new_tokens=2, min_new_tokens=2)

    return brief


def loaded(dtype: str = "float32", quant: str = "none") -> Any:
    """The default model and its tokenizer, loaded once; an int8 or int4 model with its output layer."""
    return _loaded(dtype, quant)  # for a cache, arguments that are left out and their defaults differ


@functools.cache
def _loaded(dtype: str, quant: str) -> Any:
    spec = (quant, {"output_layer": True}) if quant in ("int8", "int4") else quant
    return dk.load(dtype=dtype, quant=spec)


def weights(model: Any) -> int:
    """The bytes of weights that a pass reads: all but the embeddings, of which it takes a row a token."""
    table, output = model.get_input_embeddings().weight, model.get_output_embeddings()
    tied = getattr(output, "weight", None) is table
    return model_bytes(model) - (0 if tied else table.nbytes)


def cache_bytes(model: Any, tokens: float) -> float:
    """The bytes of keys and values of so many tokens."""
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * tokens * config.num_hidden_layers * config.num_key_value_heads * width * model.dtype.itemsize


def read_bytes(dtype: str, quant: str, tokens: float) -> float:
    """The bytes that a token of one sequence takes behind so many tokens: weights, keys and values."""
    model, _ = loaded(dtype, quant)
    return weights(model) + cache_bytes(model, tokens)

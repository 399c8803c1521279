"""A processor for ``llama_cpp.Llama`` (llama-cpp-python), in its ``LogitsProcessorList``."""

from collections.abc import Callable
from typing import Any

import torch

from decodekit.adapters.rows import Rows, resolve

__all__ = ["to_llama_cpp"]


def to_llama_cpp(processor: Any) -> Callable[[Any, Any], Any]:
    """Make a function ``(input_ids, scores) -> scores`` of llama-cpp-python, for one call.

    Its first call's tokens are the prompt; llama-cpp-python applies it before its own samplers, of which
    you may want to switch off those that do the same.

    Args:
        processor: a name, a pair ``(name, {parameter: value})``, a class or an instance.

    Returns:
        a function of input_ids numpy intc [T] and scores numpy single [V], which returns numpy single [V].

    Raises:
        UnknownNameError, ParameterError, PluginError: as `decodekit.generate` would.
    """
    rows = Rows(resolve(processor))
    prompt_length = 0

    def process(input_ids: Any, scores: Any) -> Any:
        nonlocal prompt_length
        ids = [int(token) for token in input_ids]
        prompt_length = prompt_length or len(ids)
        values = torch.tensor(scores, dtype=torch.float32)[None]
        return rows(values, [ids], [prompt_length])[0].numpy().astype(scores.dtype)

    return process

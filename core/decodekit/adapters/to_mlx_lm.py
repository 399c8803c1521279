"""A processor for ``mlx_lm.generate(logits_processors=[...])``."""

from collections.abc import Callable
from typing import Any

import torch

from decodekit.adapters.rows import Rows, resolve
from decodekit.errors import MissingLibraryError

__all__ = ["to_mlx_lm"]


def to_mlx_lm(processor: Any) -> Callable[[Any, Any], Any]:
    """Make a function ``(tokens, logits) -> logits`` of mlx-lm, for one sequence of one call.

    Its first call's tokens are the prompt. In a batch of mlx-lm give each sequence a function of its own.

    Args:
        processor: a name, a pair ``(name, {parameter: value})``, a class or an instance.

    Returns:
        a function of tokens mlx int [T] and logits mlx float [1, V], which returns logits of that dtype.

    Raises:
        MissingLibraryError: mlx is not installed.
        UnknownNameError, ParameterError, PluginError: as `decodekit.generate` would.
    """
    try:
        import mlx.core as mx
        import numpy as np
    except ImportError as error:
        message = "to_mlx_lm needs the library mlx: pip install 'mlx-lm'"
        raise MissingLibraryError(message) from error
    rows = Rows(resolve(processor))
    prompt_length = 0

    def process(tokens: Any, logits: Any) -> Any:
        nonlocal prompt_length
        ids = tokens.tolist()
        prompt_length = prompt_length or len(ids)
        values = torch.from_numpy(np.array(logits.astype(mx.float32)))
        out = rows(values, [ids] * len(values), [prompt_length] * len(values))
        return mx.array(out.numpy()).astype(logits.dtype)

    return process

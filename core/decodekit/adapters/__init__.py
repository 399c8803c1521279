"""One processor class for other engines: transformers, vLLM (both interfaces), mlx-lm, llama-cpp-python.

Each function takes a processor as `decodekit.generate` does (a name, a pair, a class or an instance) and
returns what the other engine wants; the engine's library is imported only then. For a `custom_generate`
callable of transformers, see `decodekit.as_custom_generate`.
"""

from decodekit.adapters.to_llama_cpp import to_llama_cpp
from decodekit.adapters.to_mlx_lm import to_mlx_lm
from decodekit.adapters.to_transformers import to_transformers
from decodekit.adapters.to_vllm import to_vllm_v1, to_vllm_v2

__all__ = ["to_llama_cpp", "to_mlx_lm", "to_transformers", "to_vllm_v1", "to_vllm_v2"]

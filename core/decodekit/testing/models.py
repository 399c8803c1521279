"""Models made for testing: small, exact, and built to show a wrong cache, mask or position.

Each is a real transformers model, so that ``model.generate`` runs on it as well. None touches the
global random state.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    GenerationMixin,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

__all__ = ["CacheHashModel", "MarkovModel", "tiny_llama", "tiny_mamba", "tiny_mistral"]


class VisibleTokensConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers has no stubs
    """What caches want to know of a model: one layer with one head."""

    model_type = "decodekit_visible_tokens"

    def __init__(self, vocab_size: int = 8, **kwargs: Any) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = self.num_hidden_layers = self.num_attention_heads = self.num_key_value_heads = 1
        self.head_dim = 1
        self.max_position_embeddings = 1 << 20
        super().__init__(**kwargs)


class VisibleTokensModel(PreTrainedModel, GenerationMixin):  # type: ignore[misc]  # transformers has no stubs
    """A model that reads tokens and positions back from its cache, through the mask, and nothing else."""

    config_class = VisibleTokensConfig
    _supports_sdpa = True
    _is_stateful = False
    _no_split_modules: ClassVar[list[str]] = []

    def __init__(self, config: VisibleTokensConfig) -> None:
        super().__init__(config)
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=False)
        self.post_init()

    def logits_of(self, tokens: Tensor, positions: Tensor, visible: Tensor) -> Tensor:
        """Logits float64 [B, n, V] from int64 [B, T] tokens and positions, and bool [B, n, T] visibility."""
        message = f"{type(self).__name__} must define logits_of"
        raise TypeError(message)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Like any causal language model of transformers."""
        batch, count = input_ids.shape
        start = int(past_key_values.get_seq_length()) if past_key_values is not None else 0
        if position_ids is None:
            position_ids = torch.arange(start, start + count)
        keys = input_ids.double()[:, None, :, None]
        values = position_ids.expand(batch, -1).double()[:, None, :, None].contiguous()
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, 0)
        width = start + count
        tokens, positions = keys[:, 0, :width, 0].long(), values[:, 0, :width, 0].long()
        queries = torch.arange(start, width)[:, None]
        visible = (torch.arange(width) <= queries).expand(batch, -1, -1)
        if (
            attention_mask is not None and attention_mask.dim() == 4
        ):  # as transformers makes it for static caches
            shown = attention_mask[:, 0, :, :width]
            visible = visible & (shown if shown.dtype == torch.bool else shown == 0)
        elif attention_mask is not None:
            visible = visible & attention_mask[:, None, :width].bool()
        keep = logits_to_keep or count
        logits = self.logits_of(tokens, positions, visible[:, -keep:]) * self.scale
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)


class MarkovModel(VisibleTokensModel):
    """Logits from a table of the last ``m`` visible tokens, so that every sequence can be enumerated.

    Degenerate models are tables too: NaN rows, all ties, one-hot rows, EOS at once, never EOS.
    """

    def __init__(self, table: Tensor, **config: Any) -> None:
        """Make the model.

        Args:
            table: logits float64 [V, …, V] with ``m`` context dimensions (oldest first) and the next
                token's; a context that reaches before the prompt counts as token 0.
            config: e.g. ``eos_token_id``, ``pad_token_id``, ``bos_token_id``.
        """
        super().__init__(VisibleTokensConfig(vocab_size=table.shape[-1], **config))
        self.table = table.double()

    def logits_of(self, tokens: Tensor, positions: Tensor, visible: Tensor) -> Tensor:
        """Look the last ``m`` tokens up."""
        batch, count, width = visible.shape
        last = torch.arange(width - count, width).expand(batch, -1)
        context = []
        for back in range(self.table.dim() - 2, -1, -1):
            slot = (last - back).clamp(min=0)
            seen = visible.gather(2, slot[:, :, None])[:, :, 0] & (last >= back)
            context.append(torch.where(seen, tokens.gather(1, slot), 0))
        return self.table[tuple(context)]

    @classmethod
    def random(cls, vocab_size: int, order: int = 1, seed: int = 0, **config: Any) -> "MarkovModel":
        """A table of normal logits."""
        generator = torch.Generator().manual_seed(seed)
        shape = [vocab_size] * (order + 1)
        return cls(2 * torch.randn(shape, generator=generator, dtype=torch.float64), **config)


class CacheHashModel(VisibleTokensModel):
    """Logits that hash every (position, token) pair in the cache that the mask lets through.

    A wrong rollback, reorder, mask or position changes all of them.
    """

    def __init__(self, vocab_size: int = 16, **config: Any) -> None:
        super().__init__(VisibleTokensConfig(vocab_size=vocab_size, **config))

    def logits_of(self, tokens: Tensor, positions: Tensor, visible: Tensor) -> Tensor:
        """Hash what is visible."""
        pairs = _scramble(_scramble(tokens + 1) + positions + 1)
        digest = (visible * pairs[:, None, :]).sum(-1)
        bits = _scramble(digest[:, :, None] + torch.arange(self.config.vocab_size) * 7919)
        return (bits % 100_003).double() / 20_000.0


def _scramble(x: Tensor) -> Tensor:
    """Mix the bits of an int64 (multiply, shift, multiply; wraps around)."""
    x = (x ^ (x >> 31)) * 0x4CF5AD432745937F
    x = (x ^ (x >> 29)) * 0x2545F4914F6CDD1D
    return x ^ (x >> 33)


def _seeded(make: Any, config: Any, seed: int, dtype: torch.dtype) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(config).to(dtype).eval()


_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.4,
}


def tiny_llama(
    vocab_size: int = 32, *, seed: int = 0, dtype: torch.dtype = torch.float64, **config: Any
) -> Any:
    """A random two-layer Llama in float64: a bug of cache, mask or position exceeds 1e-9.

    ``config`` holds fields of LlamaConfig, which beat our own: sizes, token ids.
    """
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    whole = LlamaConfig(vocab_size=vocab_size, **(_SMALL | special | config))
    return _seeded(LlamaForCausalLM, whole, seed, dtype)


def tiny_mistral(
    vocab_size: int = 32, *, window: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Any:
    """A random two-layer model whose layers see the last ``window`` tokens only."""
    config = MistralConfig(
        vocab_size=vocab_size, sliding_window=window, bos_token_id=1, eos_token_id=2, pad_token_id=0, **_SMALL
    )
    return _seeded(MistralForCausalLM, config, seed, dtype)


def tiny_mamba(vocab_size: int = 32, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random two-layer recurrent model, which can't take tokens back."""
    config = MambaConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        state_size=4,
        num_hidden_layers=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return _seeded(MambaForCausalLM, config, seed, dtype)

"""What transformers does not check of a call, and what it would guess."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.cache_utils import Cache

from decodekit.errors import ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_embeds", "check_ids", "fill_empty", "full_mask"]


def check_ids(model: "PreTrainedModel", input_ids: Tensor, mask: Tensor | None, name: str) -> None:
    """Raise `ParameterError` unless ``input_ids``, called ``name``, hold tokens of the model [B, T]."""
    if input_ids.dim() != 2 or input_ids.is_floating_point() or not len(input_ids):
        message = (
            f"{name} has shape {list(input_ids.shape)} and dtype {input_ids.dtype}: "
            "it must hold token ids, int64 [batch, length] with at least one row; "
            "add a dimension to a single prompt with ids[None]"
        )
        raise ParameterError(message)
    if mask is not None and mask.shape != input_ids.shape:
        message = (
            f"attention_mask has shape {list(mask.shape)} and {name} {list(input_ids.shape)}: they "
            "must be equal; pass the mask that the tokenizer gave with these ids"
        )
        raise ParameterError(message)
    vocab_size = model.config.get_text_config().vocab_size
    if input_ids.numel() and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < vocab_size:
        message = (
            f"{name} holds ids from {int(input_ids.min())} to {int(input_ids.max())}: they must be in "
            f"[0, {vocab_size}), the model's vocabulary; use the tokenizer that belongs to the model"
        )
        raise ParameterError(message)


def check_embeds(embeds: Tensor, mask: Tensor | None, *, fresh: bool) -> None:
    """Raise `ParameterError` unless the embeddings are [B, T, D] and the mask fits them."""
    if embeds.dim() != 3 or not embeds.shape[1]:
        message = (
            f"inputs_embeds has shape {list(embeds.shape)}: it must be float [batch, length, hidden size] "
            "with at least one column"
        )
        raise ParameterError(message)
    if mask is not None and fresh and mask.shape != embeds.shape[:2]:
        message = (
            f"attention_mask has shape {list(mask.shape)} and inputs_embeds {list(embeds.shape)}: the first "
            "two dimensions must be equal"
        )
        raise ParameterError(message)


def full_mask(columns: Tensor, config: GenerationConfig, cache: Cache | None, input_ids: Tensor) -> Tensor:
    """Everything is a token; refused where transformers would guess that the pad ids are not."""
    pad, eos = config._pad_token_tensor, config._eos_token_tensor
    pad_is_eos = pad is not None and eos is not None and bool(torch.isin(pad, eos))
    if pad is not None and not pad_is_eos and bool((input_ids == pad).any()):
        message = (
            f"attention_mask is missing and input_ids holds pad_token_id={int(pad)}: pass the tokenizer's "
            "attention_mask, or torch.ones_like(input_ids) when these are tokens like others"
        )
        raise ParameterError(message)
    return torch.ones(columns.shape[:2], dtype=torch.bool, device=columns.device)


def fill_empty(input_ids: Tensor, mask: Tensor, config: GenerationConfig) -> tuple[Tensor, Tensor]:
    """Give an empty prompt its BOS token."""
    empty = ~mask.any(dim=1)
    if not bool(empty.any()):
        return input_ids, mask
    if config._bos_token_tensor is None:
        message = (
            "a prompt is empty and the model has no bos_token_id to start from: give it at least one token"
        )
        raise ParameterError(message)
    if input_ids.shape[1] == 0:
        input_ids, mask = input_ids.new_zeros(len(input_ids), 1), mask.new_zeros(len(input_ids), 1)
    input_ids, mask = input_ids.clone(), mask.clone()
    input_ids[empty, -1] = config._bos_token_tensor.to(input_ids)
    mask[empty, -1] = True
    return input_ids, mask

"""What transformers does not check of a call, and what it would guess."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.cache_utils import Cache

from decodekit.errors import ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_embeds", "check_ids", "check_mask", "fill_empty", "full_mask", "to_tensor"]


def to_tensor(name: str, value: Any, device: torch.device) -> Tensor:
    """A tensor as it is; a list or tuple (of numbers, lists, arrays, tensors) or a numpy array as one.

    Raises:
        ParameterError: ``value``, the argument ``name``, is something else, or its rows differ in length.
    """
    if isinstance(value, Tensor):
        return value
    try:
        if isinstance(value, np.ndarray):
            # Tensors have no negative strides, and can do little in unsigned types.
            plain = value.astype(np.int64) if value.dtype.kind == "u" else value.copy()
            return torch.tensor(plain, device=device)
        if isinstance(value, (list, tuple)):
            made = torch.tensor([_plain(item) for item in value], device=device)
            return made if made.numel() else made.long()
    except (TypeError, ValueError, RuntimeError) as error:
        message = (
            f"{name} is no tensor and can't be made one ({error}): it must hold numbers, in rows of the same "
            "length; let the tokenizer pad them, padding=True, padding_side='left', return_tensors='pt'"
        )
        raise ParameterError(message) from error
    message = (
        f"{name} is a {type(value).__name__}: it must be a tensor, an array or a list of lists of numbers"
    )
    raise ParameterError(message)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (Tensor, np.ndarray)) else value


def check_ids(model: "PreTrainedModel", input_ids: Tensor, name: str) -> None:
    """Raise `ParameterError` unless ``input_ids``, called ``name``, hold tokens of the model [B, T]."""
    wrong = input_ids.is_floating_point() or input_ids.dtype == torch.bool
    if input_ids.dim() != 2 or wrong or not len(input_ids):
        message = (
            f"{name} has shape {list(input_ids.shape)} and dtype {input_ids.dtype}: "
            "it must hold token ids, int64 [batch, length] with at least one row; "
            "add a dimension to a single prompt with ids[None]"
        )
        raise ParameterError(message)
    vocab_size = model.config.get_text_config().vocab_size
    if input_ids.numel() and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < vocab_size:
        message = (
            f"{name} holds ids from {int(input_ids.min())} to {int(input_ids.max())}: they must be in "
            f"[0, {vocab_size}), the model's vocabulary; use the tokenizer that belongs to the model"
        )
        raise ParameterError(message)


def check_mask(mask: Tensor, columns: Tensor, name: str, whose: str, *, longer: bool = False) -> None:
    """Raise `ParameterError` unless ``mask`` says of each column whether it is a token.

    Args:
        mask: called ``name``; holds 0 and 1.
        columns: [B, T, ...], called ``whose``.
        name: see ``mask``.
        whose: see ``columns``.
        longer: it may have other columns, as where a cache holds some; only its rows must be those.
    """
    fits = mask.dim() == 2 and len(mask) == len(columns) if longer else mask.shape == columns.shape[:2]
    if not fits:
        message = (
            f"{name} has shape {list(mask.shape)} and {whose} {list(columns.shape)}: batch and length must "
            "be equal; pass the mask that the tokenizer gave with these ids"
        )
        raise ParameterError(message)
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        message = (
            f"{name} holds values from {mask.min().item()} to {mask.max().item()}: it must be 1 where there "
            "is a token and 0 where there is padding (what is added to attention scores is made from that)"
        )
        raise ParameterError(message)


def check_embeds(embeds: Tensor) -> None:
    """Raise `ParameterError` unless the embeddings are [B, T, D]."""
    if embeds.dim() != 3 or not embeds.shape[1]:
        message = (
            f"inputs_embeds has shape {list(embeds.shape)}: it must be float [batch, length, hidden size] "
            "with at least one column"
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

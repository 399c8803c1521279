"""Token healing: the last token of each prompt is chosen anew, by the model."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from decodekit.drop_in import bypassed
from decodekit.errors import ParameterError, UnsupportedArgumentError
from decodekit.request import Request
from decodekit.transformers_hooks import heal_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["healed"]


def healed(
    model: "PreTrainedModel", request: Request, kwargs: Mapping[str, Any], tokenizer: Any
) -> dict[str, Any]:
    """The keywords with prompts whose last token the model has chosen anew (all else was checked before)."""
    if tokenizer is None:
        message = "token_healing=True needs tokenizer=...: pass the model's tokenizer"
        raise ParameterError(message)
    if request.source_ids is not None or request.contexts is not request.prompts:
        message = "token_healing=True heals prompts of token ids for decoder-only models: leave it out"
        raise UnsupportedArgumentError(message)
    pad = tokenizer.pad_token_id
    healed = []
    with bypassed():
        for prompt in request.prompts:
            (row,) = heal_tokens(model, torch.tensor([prompt], device=model.device), tokenizer).tolist()
            # transformers puts the pad id in the place of the BOS token, which is not to be healed
            healed.append(list(itertools.dropwhile(lambda token: token == pad, row)))
    width = max(map(len, healed))
    own = {"input_ids", "attention_mask", "token_healing"}
    rest = {name: value for name, value in kwargs.items() if name not in own}
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in healed], device=model.device)
    shown = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in healed], device=model.device)
    return {**rest, "input_ids": ids, "attention_mask": shown, "token_healing": False}

"""Token ids as parameters: which are allowed, and how their logits are forbidden or forced."""

from collections.abc import Iterable, Sequence

import torch
from decodekit import ParameterError
from torch import Tensor

__all__ = ["check_ids", "forbid", "force"]


def check_ids(name: str, ids: Iterable[int], vocab_size: int | None = None) -> None:
    """Raise `ParameterError` for the first id that no token can have; ``vocab_size`` None knows no end."""
    for token in ids:
        if token < 0 or (vocab_size is not None and token >= vocab_size):
            end = "inf" if vocab_size is None else vocab_size
            message = (
                f"{name} holds the token id {token}: ids must be in [0, {end}); "
                "take them from the tokenizer that belongs to the model"
            )
            raise ParameterError(message)


def _column_mask(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """bool [V]: the columns of the ids; ids beyond the logits have none."""
    mask = torch.zeros(logits.shape[-1], dtype=torch.bool)
    mask[[token for token in ids if token < len(mask)]] = True
    return mask.to(logits.device)


def forbid(logits: Tensor, ids: Sequence[int], rows: Tensor) -> Tensor:
    """The logits with -inf for the ids in the rows, bool [B]."""
    return logits.masked_fill(rows[:, None] & _column_mask(logits, ids), float("-inf"))


def force(logits: Tensor, ids: Sequence[int], rows: Tensor) -> Tensor:
    """The logits with 0 for the ids and -inf for all others in the rows, bool [B]."""
    forced = torch.where(_column_mask(logits, ids), 0.0, float("-inf")).to(logits.dtype)
    return torch.where(rows[:, None], forced, logits)

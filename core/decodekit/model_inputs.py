"""What a model is given beside token ids: encoder outputs, pixels, embeddings, token types, positions."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
from torch import Tensor
from transformers import GenerationMixin
from transformers.generation.utils import ALL_CACHE_NAMES, MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL
from transformers.utils import ModelOutput

from decodekit.transformers_hooks import carries_on

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ONCE", "Columns", "InputNames", "ModelInputs", "align_right"]

ONCE = frozenset(MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL)
"""Inputs that a prompt alone needs; with a cache they are given with the first pass only."""


def align_right(values: Tensor, mask: Tensor) -> Tensor:
    """Move the columns of each row that are tokens to its end, in their order.

    Args:
        values: [B, T, ...].
        mask: bool [B, T], which columns are tokens.

    Returns:
        [B, W, ...], where W is the most tokens of a row; what stands left of shorter rows means nothing.
    """
    width = int(mask.sum(1).max())
    order = mask.long().argsort(dim=1, stable=True)[:, mask.shape[1] - width :]
    rows = torch.arange(len(values), device=values.device)[:, None]
    return values[rows, order.to(values.device)]


def _select_rows(value: Any, index: Tensor, rows: int) -> Any:
    """The given rows of a tensor [rows, ...], or of the tensors of a model's output; the rest as it is."""
    if isinstance(value, ModelOutput):
        kept = {name: item for name, item in value.items() if isinstance(item, Tensor)}
        return type(value)(**{name: _select_rows(item, index, rows) for name, item in kept.items()})
    if isinstance(value, Tensor) and value.dim() and value.shape[0] == rows:
        return value.index_select(0, index.to(value.device))
    return value


@attrs.frozen(eq=False)
class Columns:
    """An input with a value for each token: given for the prompt, and continued after it.

    Attributes:
        values: [..., B, n], left-aligned: column ``t`` belongs to the t-th token of the row.
        lengths: int64 [B], how many of the ``n`` are the row's.
        after: how it goes on: "count" on from the last value, its "last" value, or "zero".
    """

    values: Tensor
    lengths: Tensor
    after: Literal["count", "last", "zero"]

    @classmethod
    def of(cls, values: Tensor, mask: Tensor, after: Literal["count", "last", "zero"]) -> "Columns":
        """Take the values [..., B, T] of the tokens, bool [B, T]."""
        order = (~mask).long().argsort(dim=1, stable=True).to(values.device)
        return cls(values.gather(-1, order.expand(values.shape)), mask.sum(1).to(values.device), after)

    def at(self, tokens: Tensor) -> Tensor:
        """The values [..., B, m] of the tokens int64 [B, m], which may be beyond the prompt."""
        tokens = tokens.to(self.values.device)
        known = tokens < self.lengths[:, None]
        shape = (*self.values.shape[:-1], tokens.shape[-1])
        given = self.values.gather(-1, tokens.clamp(max=self.values.shape[-1] - 1).expand(shape))
        last = (self.lengths[:, None] - 1).expand(*self.values.shape[:-1], 1)
        end = self.values.gather(-1, last)
        if self.after == "count":
            further = end + 1 + tokens - self.lengths[:, None]
        else:
            further = (end if self.after == "last" else torch.zeros_like(end)).expand(shape)
        return torch.where(known, given, further)

    @staticmethod
    def stack(rows: Sequence["Columns"]) -> "Columns":
        """The rows of all."""
        values = torch.cat([row.values for row in rows], dim=-2)
        return Columns(values, torch.cat([row.lengths for row in rows]), rows[0].after)

    def select(self, index: Tensor) -> "Columns":
        """The given rows."""
        index = index.to(self.values.device)
        return attrs.evolve(self, values=self.values.index_select(-2, index), lengths=self.lengths[index])


@attrs.frozen(eq=False, kw_only=True)
class ModelInputs:
    """Inputs of a call for P prompts.

    Attributes:
        given: as the model names them; a tensor [P, ...] has a row for each prompt.
        columns: with a value for each token, see `Columns`: position ids, token types.
        inputs_embeds: float [P, W, D], the prompts as embeddings, right-aligned; in place of token ids.
        encode: run once, before the first pass: gives what encoders make of ``given``, to replace it.
    """

    given: Mapping[str, Any] = attrs.field(factory=dict)
    columns: Mapping[str, Columns] = attrs.field(factory=dict)
    inputs_embeds: Tensor | None = None
    encode: Callable[[], dict[str, Any]] | None = None

    @functools.cached_property
    def given_later(self) -> Mapping[str, Any]:
        """``given`` without what the prompt alone needs."""
        return {name: value for name, value in self.given.items() if name not in ONCE}

    def encoded(self) -> "ModelInputs":
        """With the encoders' outputs; a forward pass of theirs."""
        return self if self.encode is None else attrs.evolve(self, given=self.encode(), encode=None)

    @property
    def once(self) -> list[str]:
        """The names of what only the prompt needs."""
        return [name for name, value in self.given.items() if name in ONCE and value is not None]

    @property
    def is_empty(self) -> bool:
        """Whether there are none, so that a model is given tokens alone."""
        return not (self.given or self.columns or self.inputs_embeds is not None or self.encode is not None)

    def fixed_rows(self, rows: int) -> list[str]:
        """The names of what only the prompt needs and can't be told apart by row."""
        return [
            name
            for name in self.once
            if not (isinstance(self.given[name], Tensor) and self.given[name].shape[0] == rows)
        ]

    def select(self, index: Tensor, rows: int, *, prompts: bool) -> "ModelInputs":
        """The given rows of ``rows``; ``prompts`` says whether those of the prompt are still needed."""
        given = {
            name: _select_rows(value, index, rows)
            for name, value in self.given.items()
            if prompts or name not in ONCE
        }
        embeds = (
            self.inputs_embeds.index_select(0, index) if prompts and self.inputs_embeds is not None else None
        )
        columns = {name: column.select(index) for name, column in self.columns.items()}
        return attrs.evolve(self, given=given, columns=columns, inputs_embeds=embeds)

    @staticmethod
    def stack(rows: Sequence["ModelInputs"]) -> "ModelInputs":
        """Those of several rows, whose prompts are not needed any more."""
        first = rows[0]
        given = {name: _concatenate([row.given[name] for row in rows]) for name in first.given}
        columns = {name: Columns.stack([row.columns[name] for row in rows]) for name in first.columns}
        return ModelInputs(given=given, columns=columns)


def _concatenate(values: Sequence[Any]) -> Any:
    """Tensors, and those of a model's outputs, row after row; anything else is the same for all."""
    first = values[0]
    if isinstance(first, ModelOutput):
        return type(first)(**{name: _concatenate([value[name] for value in values]) for name in first})
    return torch.cat(list(values)) if isinstance(first, Tensor) and first.dim() else first


@attrs.frozen
class InputNames:
    """What a model calls its inputs, and how it treats them.

    Attributes:
        tokens, mask, positions, cache: names of arguments of its forward.
        takes: which of them, and of ``logits_to_keep``, its forward has.
        prefixed: whether it is an encoder-decoder model, whose outputs have names of their own.
        prepares: whether it has its own way to prepare inputs.
        updates: whether it has inputs of its own that grow with each token.
        by_row: whether a row's positions can differ from its columns.
    """

    tokens: str
    mask: str
    positions: str
    cache: str
    takes: frozenset[str]
    prefixed: bool
    prepares: bool
    updates: bool
    by_row: bool

    @classmethod
    def of(cls, model: "PreTrainedModel") -> "InputNames":
        """Those of a model."""
        prefixed = bool(model.config.is_encoder_decoder)
        prefix = "decoder_" if prefixed else ""
        accepted = inspect.signature(model.forward).parameters
        tokens, mask, positions = (
            f"{prefix}{name}" for name in ("input_ids", "attention_mask", "position_ids")
        )
        relative = getattr(model.config, "relative_attention_num_buckets", None) is not None
        prepares = (
            type(model).prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation
        )
        return cls(
            tokens,
            mask,
            positions,
            cache=next((name for name in ALL_CACHE_NAMES if name in accepted), "past_key_values"),
            takes=frozenset({mask, positions, "logits_to_keep"} & accepted.keys()),
            prefixed=prefixed,
            prepares=prepares,
            updates=carries_on(model),
            by_row=not prefixed or positions in accepted or relative,
        )

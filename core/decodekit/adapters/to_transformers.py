"""A processor for ``model.generate(logits_processor=[...])`` of transformers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from decodekit.adapters.rows import Rows, resolve
from decodekit.errors import ParameterError
from decodekit.processor import CallContext

__all__ = ["TransformersProcessor", "to_transformers"]


def to_transformers(
    processor: Any,
    *,
    attention_mask: Tensor | None = None,
    eos_token_ids: Sequence[int] = (),
    tokenizer: Any = None,
    max_new_tokens: int | None = None,
) -> "TransformersProcessor":
    """Make a `transformers.LogitsProcessor` of a processor, for one call of ``model.generate``.

    transformers applies it before its own temperature and truncations, and tells it neither of padding nor
    of the call: pass here what the processor needs of it.

    Args:
        processor: a name, a pair ``(name, {parameter: value})``, a class or an instance.
        attention_mask: int64 or bool [B, T] of the prompts, when they are padded.
        eos_token_ids: the EOS ids of the call, for processors that treat them apart.
        tokenizer: for processors that need one.
        max_new_tokens: the most tokens of a row, for processors that count.

    Raises:
        UnknownNameError, ParameterError, PluginError: as `decodekit.generate` would.
    """
    context = CallContext(
        vocab_size=0,
        eos_token_ids=tuple(eos_token_ids),
        tokenizer=tokenizer,
        max_new_tokens=max_new_tokens,
    )
    return TransformersProcessor(Rows(resolve(processor), context), attention_mask)


class TransformersProcessor(LogitsProcessor):  # type: ignore[misc]  # transformers has no stubs
    """What `to_transformers` makes; rows that do not go on from those before are new prompts."""

    def __init__(self, rows: Rows, attention_mask: Tensor | None) -> None:
        self._rows = rows
        self._mask = None if attention_mask is None else attention_mask.bool().cpu()
        self._width = 0
        self._shown: set[int] = set()  # hashes of the rows of this call of generate

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Process scores [B, V] after input_ids int64 [B, T].

        Raises:
            ParameterError: the attention mask is of other prompts.
        """
        tokens = [tuple(row) for row in input_ids.tolist()]
        if not all(hash(row[:-1]) in self._shown for row in tokens):
            self._width = input_ids.shape[1]  # another call of generate
            self._shown.clear()
        self._shown.update(map(hash, tokens))
        pads = self._pads(len(tokens))
        rows = [row[pad:] for row, pad in zip(tokens, pads, strict=True)]
        return self._rows(scores, rows, [self._width - pad for pad in pads])

    def _pads(self, count: int) -> list[int]:
        """The columns of padding on the left of each row; transformers repeats each prompt for its beams."""
        if self._mask is None:
            return [0] * count
        if self._mask.shape[1] != self._width or count % len(self._mask):
            message = (
                f"attention_mask has shape {list(self._mask.shape)} and the call {count} rows of "
                f"{self._width} prompt columns: make a new adapter for each call of generate"
            )
            raise ParameterError(message)
        first = self._mask.int().argmax(dim=1)
        pads: list[int] = torch.repeat_interleave(first, count // len(self._mask)).tolist()
        return pads

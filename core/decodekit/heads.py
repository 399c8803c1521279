"""Multi-token heads beside a session: layers that read the model's last hidden states, and a token more.

Slots are the session's: slot ``j`` of head ``k`` is for what the model said there, and for the token that
comes ``k + 1`` places later. So the session's mask is theirs too, their positions are ``k + 1`` further, and
what is done to the rows of the session is done to them.

A session feeds all it holds of a row at different times; heads are fed when they draft. The last ``k`` slots
of head ``k`` then stand for drafted tokens, and are filled anew by the next draft.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.masking_utils import LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING, create_causal_mask

from decodekit import caches
from decodekit.chain import wide
from decodekit.distribution import Drafts
from decodekit.errors import CapabilityError
from decodekit.growing import GrowingLayer
from decodekit.row import TARGET, Row

if TYPE_CHECKING:
    from transformers.modeling_layers import MtpModel

    from decodekit.session import Session

__all__ = ["Ahead", "Heads"]


class Heads:
    """The hidden states that a session's model gave for its slots, and the caches of the heads.

    Attributes:
        model: the heads.
    """

    def __init__(self, model: "MtpModel") -> None:
        """Begin beside an empty session.

        Raises:
            CapabilityError: a head keeps a state that can't be taken back.
        """
        if not caches.can_roll_back(caches.new_cache(model, "dynamic", None)):
            message = (
                f"the multi-token heads of {model.config.model_type} keep states that can't be taken back: "
                "choose another drafter"
            )
            raise CapabilityError(message)
        self.model = model
        self._cache: Any = caches.new_cache(model, "growing", None)
        self._states = DynamicCache()
        self._states.layers = [GrowingLayer()]

    def see(self, hidden: Tensor) -> None:
        """Keep the last hidden states [B, n, D] of the columns that the session was just fed."""
        self._states.update(hidden[:, None], hidden[:, None, :, :0], 0)

    def select(self, index: Tensor) -> None:
        """Keep the given rows, as the session does."""
        for cache in (self._states, self._cache):
            caches.select(cache, index)

    def roll_back(self, common: int, shifts: Tensor | None) -> None:
        """Move each row to the right by ``shifts``, as the session does, which drops ``common`` slots.

        Heads hold none of these. What is shifted out of their last slot is filled anew.
        """
        caches.roll_back(self._states, common, shifts)
        caches.roll_back(self._cache, 0, shifts)

    def trim(self, spare: int) -> None:
        """Drop the first ``spare`` slots, as the session does."""
        for cache in (self._states, self._cache):
            caches.trim(cache, spare)

    def open(self, depth: int, width: int) -> int:
        """The slot of ``width`` from which on the first ``depth`` heads are to be fed anew."""
        layers = self._cache.layers[:depth]
        held: int = min(layer.get_seq_length() for layer in layers)
        start = max(min(held - (depth - 1), width - 1), 0)  # all is held already when they are asked again
        for layer in layers:
            if not start:
                layer.reset()  # an empty one has the number of rows of its past, and no selection changes it
            elif layer.is_initialized:
                layer.keys, layer.values = layer.keys[:, :, :start], layer.values[:, :, :start]
        return start

    def states(self, start: int) -> Tensor:
        """The hidden states [B, n, D] from a slot on."""
        keys: Tensor = self._states.layers[0].keys
        return keys[:, 0, start:]

    def feed(self, head: int, hidden: Tensor, tokens: Tensor, places: Tensor, mask: Tensor | None) -> Tensor:
        """Run a head on further slots of every row.

        Args:
            head: which one, from 0 on; those before it were fed.
            hidden: [B, n, D], what was said before at these slots: by the model, or by the head before.
            tokens: int64 [B, n], the token ``head + 1`` places later.
            places: int64 [B, n], each slot's position in its row.
            mask: int64 [B, W], which slots are the row's; None where all are.

        Returns:
            [B, n, D], what the next head is fed.
        """
        model: Any = self.model
        tokens, places = tokens.to(hidden.device), (places + head + 1).to(hidden.device)
        embeds = model.embed_tokens(tokens).to(hidden)
        rope = {"layer_type": model.config.layer_types[head]} if model.has_per_layer_rope else {}
        angles = (
            model.rotary_emb(embeds, position_ids=places, **rope) if model.rotary_emb is not None else None
        )
        said: Tensor = model.layers[head](
            embeds,
            hidden,
            position_embeddings=angles,
            attention_mask=self._mask(head, embeds, places, mask),
            position_ids=places,
            past_key_values=self._cache,
        )
        return model.shared_post_norm(said) if model.use_shared_post_norm else said

    def _mask(self, head: int, embeds: Tensor, places: Tensor, mask: Tensor | None) -> Any:
        """The mask that the head's attention takes; transformers' own has no place for padding."""
        config = self.model.config
        kinds = getattr(config, "layer_types", None)
        make = LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING[kinds[head]] if kinds else create_causal_mask
        return make(
            config=config.per_layer_config[head] if config.is_heterogeneous else config,
            inputs_embeds=embeds,
            attention_mask=mask if mask is None else mask.to(embeds.device),
            past_key_values=self._cache,
            position_ids=places,
            layer_idx=head,
        )

    def logits(self, said: Tensor) -> Tensor:
        """Raw logits [B, V] after the last slot of what a head said, float32 or better."""
        return wide(self.model._project_to_logits(said[:, -1:])[:, 0])


class Ahead:
    """A draft of the heads, one head after another: head ``k`` says the ``k + 1``-th token of each row."""

    def __init__(self, rows: Sequence[Row], session: "Session", depth: int) -> None:
        """Begin after the committed tokens of every row, of which the session has fed all but the last."""
        assert session.heads is not None
        self._heads = session.heads
        self._device = session.device
        start = self._heads.open(depth, session.width)
        self._places, self._mask = session.columns(start, session.width)
        self._said = self._heads.states(start)
        self._tokens = []
        for row, pad in zip(rows, session.pads, strict=True):
            missing = [0] * max(pad - start, 0)
            self._tokens.append(missing + row.since(max(start - pad, 0) + 1, TARGET))
        self._next = 0

    def logits(self, drafts: Drafts) -> Tensor:
        """Raw logits [B, V] after the drafts, a token longer at each call; a row's own may have stopped."""
        head, count = self._next, self._said.shape[1]
        lines = [
            [*tokens, *draft, *([0] * (head - len(draft)))][head : head + count]
            for tokens, draft in zip(self._tokens, drafts, strict=True)
        ]
        self._said = self._heads.feed(head, self._said, torch.tensor(lines), self._places, self._mask)
        self._next += 1
        return self._heads.logits(self._said).to(self._device)

"""One model and its cache, as a batch of rows: the place of masks, positions and layout.

Every row is right-aligned: row ``r`` owns the last ``length[r]`` of ``width`` cache slots, and the slots
to its left are padding. Masks and position ids follow from ``(width, pads)`` alone, and neighbouring
tokens of a row stand in neighbouring slots, which sliding windows need.

* Rows that feed a different number of tokens are padded on the right, where causal masks hide the
  padding, and the padding is rolled back.
* Rolling back a different number of tokens per row crops what all rows give up, and shifts the rest
  of each row to the right.
* What is done to the layers of a cache is in `decodekit.caches`.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from decodekit import caches
from decodekit.caches import RowCache
from decodekit.compiled import CompiledStep
from decodekit.errors import CapabilityError
from decodekit.forward import Asked, Forward
from decodekit.heads import Heads
from decodekit.history import shift_right
from decodekit.layout import Layout
from decodekit.model_inputs import InputNames, ModelInputs
from decodekit.strategy import Capability
from decodekit.transformers_hooks import OneToken, carry_on

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Session"]

_ALL = frozenset(Capability)
_UNEVEN = frozenset({Capability.ROLLBACK, Capability.POSITIONS})


class Session:
    """A model with the cached tokens of a batch of rows.

    Attributes:
        width: cache slots in use.
        pads: how many slots on the left of each row are padding.
        forward_passes, tokens_fed: counters; padding is not counted.
        inputs: what the model is given beside tokens, for the rows as they stand.
        compiled: in place of the model, for the passes that it takes.
        prompt: what the layers said at every column of the first pass, when that was asked for; its logits
            are empty.
        encoder_outputs: what the encoder said of every prompt, of an encoder-decoder model.
        heads: what follows the rows of the session, and reads the last hidden states of every pass.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        *,
        cache: str | Cache = "dynamic",
        capacity: int | None = None,
        inputs: ModelInputs | None = None,
        past: Tensor | None = None,
        chunk: int | None = None,
        single: bool = False,
        traced: bool = False,
    ) -> None:
        """Open a session; nothing is computed yet.

        Args:
            model: a model of transformers that has a language model's head.
            cache: "dynamic", "offloaded", "static" and "offloaded_static" (these need ``capacity``), "none"
                (every pass recomputes the whole row), or a cache of transformers.
            capacity: the most slots a static cache must hold.
            inputs: what the model is given beside tokens.
            past: bool [B, W], which slots of a cache that is given are tokens of the rows.
            chunk: feed the prompt in pieces of this many columns.
            single: there will never be more than one row.
            traced: keep ``prompt``.

        Raises:
            ParameterError: ``cache`` is another word, or a static cache has no capacity.
            CapabilityError: the tokens in ``past`` have gaps, and the cache can't close them.
        """
        self.model = model
        self.device = model.device
        self.width = self._before = 0
        self.pads: list[int] = []
        self.forward_passes = self.tokens_fed = 0
        self.inputs = inputs or ModelInputs()
        self.prompt: Forward | None = None
        self.encoder_outputs: Any = None
        self._pack: Callable[[], None] = lambda: None
        self._chunk = chunk
        self._traced = traced
        self.compiled: OneToken | CompiledStep | None = None
        self.heads: Heads | None = None
        self._tokens = torch.empty(0, 0, dtype=torch.long)  # only when there is no cache
        self._layout: Layout | None = None
        self.cache = caches.new_cache(model, cache, capacity) if isinstance(cache, str) else cache
        self._names = InputNames.of(model)
        self._even = not single and not self._names.by_row
        fixed = self.cache is not None and self.cache.is_compileable  # its masks are made beforehand
        self._windowed = caches.is_recorded(self.cache)
        self._recurrent = caches.is_recurrent(self.cache)
        self._prepares = self._names.prepares or self._recurrent or fixed
        if past is not None and past.shape[1]:
            self._continue(past)

    def _continue(self, past: Tensor) -> None:
        """Take the tokens over that stand in a given cache."""
        self.width = self._before = past.shape[1]
        counts = past.sum(1).tolist()
        self.pads = [self.width - count for count in counts]
        if any(not bool(row[pad:].all()) for row, pad in zip(past, self.pads, strict=True)):
            assert self.cache is not None
            self._pack = functools.partial(caches.pack, self.cache, past)
            if not caches.can_pack(self.cache):
                reason = "a cache with windows, states or a fixed size can't close them"
                message = (
                    f"the attention mask has gaps within past_key_values, and {reason}: continue one by one"
                )
                raise CapabilityError(message)

    @property
    def offers(self) -> frozenset[Capability]:
        """What a strategy may ask of this session."""
        if caches.is_recurrent(self.cache):
            return frozenset({Capability.SELECT, Capability.HIDDEN_STATES})
        if self._names.updates:
            return _ALL - _UNEVEN
        if self._even or not (self.cache is None or caches.can_roll_back(self.cache)):
            return _ALL - {Capability.ROLLBACK}
        return _ALL

    def why_not(self, capability: Capability) -> str:
        """Why a capability is not offered, and what to do."""
        name = type(self.model).__name__
        if caches.is_recurrent(self.cache):
            return f"{name} keeps a state that can't be taken back or fed unevenly; pass use_cache=False"
        if self._names.updates:
            return f"{name} has inputs of its own that grow by the token; use a strategy that does not draft"
        if self._even:
            return f"{name} counts positions by column, so rows must stay level; pass one prompt at a time"
        return caches.why_no_rollback(self.cache)

    @property
    def lengths(self) -> list[int]:
        """How many tokens of each row are in the cache."""
        return [self.width - pad for pad in self.pads]

    @property
    def room(self) -> int | None:
        """How many further slots a static cache has; None where there is no limit."""
        return caches.room(self.cache, self.width)

    @property
    def filled(self) -> Callable[[int], int] | None:
        """From new tokens a row to the most that need no larger kernel; None where there are no kernels."""
        step = self.compiled
        return (lambda count: step.filled(len(self.pads), count)) if isinstance(step, CompiledStep) else None

    @property
    def windows(self) -> list[int | None]:
        """How many tokens each layer of the cache sees at most; None where it sees all."""
        return caches.windows(self.cache) if self.cache is not None else []

    def feed(
        self,
        tokens: Tensor,
        counts: Sequence[int] | None = None,
        *,
        keep: int | None = None,
        hidden: bool = False,
        attentions: bool = False,
    ) -> Forward:
        """Run the model on the next tokens of every row.

        Args:
            tokens: int64 [B, n]. Into an empty session rows are right-aligned (padding on the left);
                afterwards they are left-aligned (padding on the right).
            counts: how many of the ``n`` are tokens, for each row; left out, all.
            keep: give the outputs of the last ``keep`` columns only; left out, of all.
            hidden: give the hidden states as well.
            attentions: give the attentions as well.

        Returns:
            The outputs for the last ``keep`` columns; those of padding columns mean nothing.

        Raises:
            CapabilityError: ``counts`` differ and the cache can't roll back; nothing has changed then.
        """
        batch, count = tokens.shape
        counts = list(counts) if counts is not None else [count] * batch
        first, uneven = self.width == 0, counts != [count] * batch
        if first:
            self.pads = [count - real for real in counts]
        elif uneven:
            self._demand_rollback()
        asked = Asked(keep or count, hidden, attentions)
        if not self.forward_passes:
            output = self._feed_prompt(tokens, asked)
        elif self._recurrent and count > 1:
            output = self._run_one_by_one(tokens, asked)
        else:
            output = self._run(tokens, asked)
        self.tokens_fed += sum(counts)
        if not first and uneven:
            self.rollback([count - real for real in counts])
        return output

    def _feed_prompt(self, tokens: Tensor, asked: Asked) -> Forward:
        self._pack()  # not before: the call may yet be refused
        self.inputs = self.inputs.encoded()
        self.encoder_outputs = self.inputs.given.get("encoder_outputs")
        keep = tokens.shape[1] if self._traced else asked.keep
        if self._recurrent and self._before and not self.inputs.once:
            output = self._run_one_by_one(tokens, attrs.evolve(asked, keep=keep), prompt=True)
        else:
            for piece in torch.split(tokens, self._chunk or max(tokens.shape[1], 1), dim=1):
                output = self._run(piece, attrs.evolve(asked, keep=min(keep, piece.shape[1])), prompt=True)
        if self._traced:
            self.prompt = attrs.evolve(output, logits=output.logits[..., :0])
        return output.tail(asked.keep)

    def _run_one_by_one(self, tokens: Tensor, asked: Asked, *, prompt: bool = False) -> Forward:
        """A pass for each column: of several onto a state Mamba's forward is off, and Jamba's wrong."""
        outputs: list[Forward] = []
        for column in torch.split(tokens, 1, dim=1):
            outputs = [*outputs, self._run(column, asked, prompt=prompt)][-asked.keep :]
        return functools.reduce(Forward.join, outputs)

    def _run(self, tokens: Tensor, asked: Asked, *, prompt: bool = False) -> Forward:
        """One pass over all columns of ``tokens``."""
        tokens, count = tokens.to(self.device), tokens.shape[1]
        if self.cache is None:
            past = self._tokens.to(self.device)
            self._tokens = tokens = torch.cat([past, tokens], dim=1) if self.width else tokens
        elif not prompt and self._windowed:  # of a prompt a window keeps only its end
            caches.record(self.cache)
        inputs = self._inputs(tokens, count, prompt)
        if "logits_to_keep" in self._names.takes:
            inputs["logits_to_keep"] = min(asked.keep, count)
        if asked.hidden or self.heads is not None:
            inputs["output_hidden_states"] = True if asked.hidden else -1  # -1: of the last layer only
        inputs |= {"output_attentions": True} if asked.attentions else {}
        step = self.compiled
        run = step.for_pass(len(tokens), count, prompt=prompt) if step is not None else None
        output = (self.model if run is None else run)(**inputs, return_dict=True)
        if self._names.updates:
            self.inputs = attrs.evolve(self.inputs, given=carry_on(self.model, output, self.inputs.given))
        if self.heads is not None:
            self.heads.see(output.hidden_states[-1][:, -count:])
        self.width += count
        self.forward_passes += 1
        return Forward.of(output, asked, self.width, self.pads, prefixed=self._names.prefixed)

    def _inputs(self, tokens: Tensor, count: int, prompt: bool) -> dict[str, Any]:
        """The arguments of a pass over ``count`` new columns; without a cache over all of them."""
        names = self._names
        inputs = dict(self.inputs.given if prompt or self.cache is None else self.inputs.given_later)
        start, stop = self.width if self.cache is not None else 0, self.width + count
        places, mask = self.columns(start, stop)
        for name, column in self.inputs.columns.items():
            inputs[name] = column.at(places)
        if names.positions in names.takes:
            inputs.setdefault(names.positions, places)
        inputs |= {names.mask: mask} if names.mask in names.takes else {}
        inputs["use_cache"], inputs[names.cache] = self.cache is not None, self.cache
        if prompt and self.inputs.inputs_embeds is not None:
            fed = self.width - self._before
            inputs["inputs_embeds"] = self.inputs.inputs_embeds[:, fed : fed + count]
        if self._prepares:
            prepared: dict[str, Any] = self.model.prepare_inputs_for_generation(
                tokens, is_first_iteration=prompt, **inputs
            )
            return prepared
        return inputs if "inputs_embeds" in inputs else {**inputs, names.tokens: tokens}

    def columns(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Positions int64 [B, stop - start] of some slots, and the mask int64 [B, stop] of all up to them."""
        if self._layout is None or not self._layout.fits(self.pads, stop):
            self._layout = Layout.of(self.pads, stop, self.device)
        return self._layout.slices(start, stop)

    def idle(self) -> None:
        """Run the model once on nothing that matters: other processes run it, and wait for this one."""
        tokens = torch.zeros(max(len(self.pads), 1), 1, dtype=torch.long, device=self.device)
        inputs = {**self.inputs.given_later, self._names.tokens: tokens, "use_cache": False}
        self.model(**inputs, return_dict=True)

    def select(self, rows: Sequence[int]) -> None:
        """Keep the given rows, in that order; a row may be named more than once."""
        before = len(self.pads)
        if list(rows) == list(range(before)):
            return
        self.pads = [self.pads[row] for row in rows]
        index = torch.tensor(list(rows), dtype=torch.long, device=self.device)
        self.inputs = self.inputs.select(index, before, prompts=self.cache is None)
        if self.cache is None:
            self._tokens = self._tokens.to(self.device)[index]
        else:
            caches.select(self.cache, index)
        if self.heads is not None:
            self.heads.select(index)
        self._trim()

    def take(self, row: int) -> RowCache:
        """A copy of what the cache holds of a row, e.g. before it leaves."""
        assert self.cache is not None
        index = torch.tensor([row], device=self.device)
        inputs = self.inputs.select(index, len(self.pads), prompts=False)
        return caches.take_row(self.cache, row, self.lengths[row], self.width, inputs)

    def load(self, rows: Sequence[RowCache]) -> None:
        """Go on with these rows, and no others; heads don't follow, since nothing is known of the past."""
        assert self.cache is not None
        self.heads = None
        lengths = [row.length for row in rows]
        self.width = max(lengths)
        self.pads = [self.width - length for length in lengths]
        self.inputs = ModelInputs.stack([row.inputs for row in rows])
        caches.put_rows(self.cache, rows, [range(pad, self.width) for pad in self.pads], self.width)

    def put(self, rows: Sequence[RowCache], columns: Sequence[Sequence[int]], width: int) -> None:
        """Leave the cache with these rows, their tokens in the given slots of ``width``; feed no more."""
        assert self.cache is not None
        caches.put_rows(self.cache, rows, columns, width)

    def join(self, other: "Session") -> None:
        """Take the rows of another session of this model in below; it is not used any more."""
        assert self.cache is not None
        assert other.cache is not None
        caches.join(self.cache, other.cache)
        lengths, self.width = [*self.lengths, *other.lengths], max(self.width, other.width)
        self.pads = [self.width - length for length in lengths]
        self.forward_passes += other.forward_passes
        self.tokens_fed += other.tokens_fed

    def branch(self, model: "PreTrainedModel", layers: int) -> "Session":
        """A session of ``model`` that begins with what the first ``layers`` layers hold, without a copy."""
        other = copy.copy(self)
        other.model, other.compiled, other.heads, other.pads = model, None, None, [*self.pads]
        if self.cache is not None:
            other.cache = caches.branch(self.cache, layers)
        return other

    def rollback(self, counts: Sequence[int]) -> None:
        """Take back the last tokens, ``counts[r]`` of row ``r``.

        Models with sliding windows can take back what was fed since `settle`, and nothing of the prompt.

        Raises:
            CapabilityError: the cache can't; nothing has changed then.
        """
        if not any(counts):
            return
        self._demand_rollback()
        common = min(counts)
        shifts = [count - common for count in counts]
        index = torch.tensor(shifts, device=self.device) if any(shifts) else None
        if self.cache is None:
            tokens = self._tokens if index is None else shift_right(self._tokens.to(self.device), index, 1)
            self._tokens = tokens[:, : self.width - common]
        else:
            caches.roll_back(self.cache, common, index)
        if self.heads is not None:
            self.heads.roll_back(common, index)
        self.width -= common
        if index is not None:
            self.pads = [pad + shift for pad, shift in zip(self.pads, shifts, strict=True)]
            self._trim()

    def _demand_rollback(self) -> None:
        if Capability.ROLLBACK not in self.offers:
            message = f"rollback is not possible: {self.why_not(Capability.ROLLBACK)}"
            raise CapabilityError(message)

    def settle(self) -> None:
        """Let sliding windows drop what has left them; what stands now can't be taken back any more."""
        if self.cache is not None and self._windowed:
            caches.settle(self.cache)

    def _trim(self) -> None:
        """Drop the slots that are padding in every row."""
        spare = min(self.pads, default=0)
        if not spare or self._even or not (self.cache is None or caches.can_roll_back(self.cache)):
            return
        if self.cache is None:
            self._tokens = self._tokens[:, spare:]
        else:
            caches.trim(self.cache, spare)
        if self.heads is not None:
            self.heads.trim(spare)
        self.width -= spare
        self.pads = [pad - spare for pad in self.pads]

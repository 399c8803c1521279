"""What a call returns: transformers' output class, with log-probabilities and counters."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any

import attrs
import torch
import transformers.generation as transformers_outputs
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.generation import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput

from decodekit.batch import Batch
from decodekit.keep import Keep
from decodekit.loop import anywhere
from decodekit.row import TARGET, Row
from decodekit.session import Session
from decodekit.traces import join

__all__ = [
    "AnyOutput",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateBeamOutput",
    "GenerateEncoderDecoderOutput",
    "GenerateOutput",
    "RowStats",
    "Stats",
    "assemble",
    "without_ours",
]


@attrs.frozen(kw_only=True)
class RowStats:
    """What one row of the result took.

    Attributes:
        new_tokens: its generated tokens.
        steps: in how many steps it got them; a step has one pass of the target at most.
        drafted, accepted: of a strategy that speculates.
    """

    new_tokens: int
    steps: int
    drafted: int
    accepted: int

    @classmethod
    def of(cls, row: Row) -> "RowStats":
        """The counters of a row."""
        return cls(new_tokens=len(row.tokens), steps=row.steps, drafted=row.drafted, accepted=row.accepted)

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step gave, at least 1; 0 for a row without any."""
        return self.new_tokens / self.steps if self.steps else 0.0


@attrs.frozen(kw_only=True)
class Stats:
    """What a call did, in counts and seconds.

    Attributes:
        strategy: name of the strategy.
        chains: the chains in their order; one, unless rows have their own.
        prompt_tokens, new_tokens: over all rows; a prompt counts once.
        forward_passes: of the target model.
        tokens_fed: tokens that went through the models; padding is not counted.
        drafted, accepted: of a strategy that speculates.
        prefill_seconds, decode_seconds: wall time until the prompts were fed, and after that.
        rows: one `RowStats` a row, in the order of the result.
        details: what the strategy tells of itself, by name.
    """

    strategy: str
    chains: tuple[str, ...]
    prompt_tokens: int
    new_tokens: int
    forward_passes: int
    tokens_fed: int
    drafted: int
    accepted: int
    prefill_seconds: float
    decode_seconds: float
    rows: tuple[RowStats, ...] = ()
    details: dict[str, Any] = attrs.field(factory=dict)


@dataclass
class GenerateOutput(GenerateDecoderOnlyOutput):  # type: ignore[misc]  # transformers has no stubs
    """transformers' output of decoder-only models, and what it lacks.

    Attributes:
        token_logprobs: float64 [B, N], log-probability of each generated token under the processed
            distribution that it was chosen from; 0 after the end of a row.
        finish_reasons: why each row ended: "eos", "length", "stop_string", "time" or "criterion";
            "exhausted" where a search found fewer sequences than were asked for.
        stats: `Stats` of the call.
    """

    token_logprobs: Tensor | None = None
    finish_reasons: tuple[str, ...] | None = None
    stats: Stats | None = None


@dataclass
class GenerateBeamOutput(GenerateBeamDecoderOnlyOutput):  # type: ignore[misc]  # transformers is not typed
    """transformers' output of a search, with what `GenerateOutput` adds."""

    token_logprobs: Tensor | None = None
    finish_reasons: tuple[str, ...] | None = None
    stats: Stats | None = None


@dataclass
class GenerateEncoderDecoderOutput(transformers_outputs.GenerateEncoderDecoderOutput):  # type: ignore[misc]  # the same
    """transformers' output of encoder-decoder models, with what `GenerateOutput` adds."""

    token_logprobs: Tensor | None = None
    finish_reasons: tuple[str, ...] | None = None
    stats: Stats | None = None


@dataclass
class GenerateBeamEncoderDecoderOutput(transformers_outputs.GenerateBeamEncoderDecoderOutput):  # type: ignore[misc]  # the same
    """transformers' output of a search with an encoder-decoder model, with what `GenerateOutput` adds."""

    token_logprobs: Tensor | None = None
    finish_reasons: tuple[str, ...] | None = None
    stats: Stats | None = None


AnyOutput = (
    GenerateOutput | GenerateBeamOutput | GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput
)


def without_ours(output: AnyOutput) -> Any:
    """The same as an object of transformers' class, for code that goes through every field."""
    kind = type(output).__mro__[1]
    return kind(**{field.name: getattr(output, field.name) for field in dataclass_fields(kind)})


def assemble(
    batch: Batch,
    rows: Sequence[Row],
    input_ids: Tensor,
    mask: Tensor,
    pad_token_id: int,
    keep: Keep,
    stats: Stats,
    *,
    synced: bool = False,
) -> AnyOutput:
    """Put finished (or interrupted) rows side by side, in transformers' form.

    Args:
        batch: what was decoded.
        rows: in the order of the result; each stands after its prompt.
        input_ids: int64 [P, T], the prompts as they were given.
        mask: bool [P, W], which columns of what was fed for the prompts are tokens.
        pad_token_id: fills rows that ended early.
        keep: what was kept.
        stats: of the call.
        synced: other processes assemble theirs at this moment, and must run the model as often.
    """
    longest = max((len(row.tokens) for row in rows), default=0)
    prompts = input_ids[[row.prompt for row in rows]]
    new = [row.tokens + [pad_token_id] * (longest - len(row.tokens)) for row in rows]
    tail = torch.tensor(new, dtype=torch.long, device=input_ids.device).view(len(rows), longest)
    fields: dict[str, Any] = {
        "sequences": torch.cat([prompts, tail], dim=1),
        "finish_reasons": tuple(row.finish_reason or "interrupted" for row in rows),
        "stats": stats,
    }
    if keep.logprobs:
        padded = [row.logprobs + [0.0] * (longest - len(row.logprobs)) for row in rows]
        fields["token_logprobs"] = torch.tensor(padded, dtype=torch.float64).view(len(rows), longest)
    if keep.cache:
        fields["past_key_values"] = _cache(batch, rows, mask, synced=synced)
    fields |= _of_search(batch, rows, keep) if keep.by_slot else _of_rows(rows, longest, pad_token_id, keep)
    pair = bool(batch.target.model.config.is_encoder_decoder)
    if keep.traces:
        fields |= _traces(batch, rows, longest, mask, keep, pair=pair)
    if pair:
        kind = GenerateBeamEncoderDecoderOutput if keep.by_slot else GenerateEncoderDecoderOutput
    else:
        kind = GenerateBeamOutput if keep.by_slot else GenerateOutput
    return kind(**fields)


def _cache(batch: Batch, rows: Sequence[Row], mask: Tensor, *, synced: bool) -> Cache | None:
    """The target's cache with the given rows, in that order, and each token at its column of the result."""
    session = batch.target
    if session.cache is None or not session.forward_passes:
        return session.cache
    longest = max(len(row.tokens) for row in rows)
    width = mask.shape[1] + longest - 1
    pads = [mask.shape[1] - len(row.context(TARGET)) for row in rows]
    in_place = [*map(id, batch.standing)] == [*map(id, rows)] and (session.width, session.pads) == (
        width,
        pads,
    )
    for position, row in enumerate(() if in_place else batch.standing):
        row.cache = session.take(position)
    behind = [row for row in rows if len(row.tokens) < longest and row.cache is not None and not in_place]
    if synced and anywhere(bool(behind), session.device) and not behind:
        session.idle()
    if in_place:
        return session.cache  # everything stands where it is to stand
    _feed_last(session, behind)
    prompts = [mask[row.prompt].nonzero()[:, 0].tolist() for row in rows]
    columns = [
        [*prompt, *range(mask.shape[1], min(mask.shape[1] + len(row.tokens), width))]
        for prompt, row in zip(prompts, rows, strict=True)
    ]
    session.put([row.cache for row in rows if row.cache is not None], columns, width)
    return session.cache


@torch.no_grad()
def _feed_last(session: Session, rows: Sequence[Row]) -> None:
    """Only the last column of the result is never fed: rows that ended before it lack their last token."""
    parts = [row.cache for row in rows if row.cache is not None]
    if parts:
        session.load(parts)
        session.feed(torch.tensor([row.tokens[-1:] for row in rows]))
        for position, row in enumerate(rows):
            row.cache = session.take(position)


def _of_search(batch: Batch, rows: Sequence[Row], keep: Keep) -> dict[str, Any]:
    """Scores by step and slot, and whence each token came."""
    longest = max((len(row.parents) for row in rows), default=0)
    parents = [row.parents + [-1] * (longest - len(row.parents)) for row in rows]
    fields: dict[str, Any] = {
        "beam_indices": torch.tensor(parents, dtype=torch.int32).view(len(rows), longest)
    }
    steps = batch.recorder.steps
    if keep.scores:
        fields["sequences_scores"] = torch.tensor([row.score for row in rows])
        fields["scores"] = tuple(_float(step.scores) for step in steps if step.scores is not None)
    if keep.logits:
        fields["logits"] = tuple(_float(step.logits) for step in steps if step.logits is not None)
    return fields


def _of_rows(rows: Sequence[Row], longest: int, pad_token_id: int, keep: Keep) -> dict[str, Any]:
    """Scores by step and row."""
    fields: dict[str, Any] = {}
    if keep.scores:
        fields["scores"] = _steps([row.scores for row in rows], longest, pad_token_id)
    if keep.logits:
        fields["logits"] = _steps([row.logits for row in rows], longest, pad_token_id)
    return fields


def _traces(
    batch: Batch, rows: Sequence[Row], longest: int, mask: Tensor, keep: Keep, *, pair: bool
) -> dict[str, Any]:
    """Attentions and hidden states under transformers' names."""
    lengths = [len(row.context(TARGET)) for row in rows]
    if keep.by_slot:
        steps = [step.traces for step in batch.recorder.steps]
        prompts = {row.prompt: length for row, length in zip(rows, lengths, strict=True)}
        per_prompt = len(steps[0]) // len(prompts) if steps else 0
        lengths = [length for _, length in sorted(prompts.items()) for _ in range(per_prompt)]
    else:
        steps = [
            [row.traces[step] if step < len(row.traces) else None for row in rows] for step in range(longest)
        ]
    found = join(steps, lengths, mask.shape[1], batch.target.windows)
    prefix = "decoder_" if pair else ""
    encoded = batch.target.encoder_outputs or {}
    fields: dict[str, Any] = {}
    if keep.attentions:
        fields[f"{prefix}attentions"] = found.attentions
    if keep.hidden_states:
        fields[f"{prefix}hidden_states"] = found.hidden_states
    if pair and keep.attentions:
        fields["cross_attentions"] = found.cross_attentions
        fields["encoder_attentions"] = encoded.get("attentions")
    if pair and keep.hidden_states:
        fields["encoder_hidden_states"] = encoded.get("hidden_states")
    return fields


def _float(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _steps(kept: list[list[Tensor]], longest: int, pad_token_id: int) -> tuple[Tensor, ...]:
    """One [B, V] a step; a row that has ended gives its pad token the probability 1."""
    steps = []
    for step in range(longest):
        like = next(row[step] for row in kept if len(row) > step)
        certain = torch.full_like(like, -torch.inf)
        certain[min(pad_token_id, len(certain) - 1)] = 0.0
        step_rows = torch.stack([row[step] if len(row) > step else certain for row in kept])
        steps.append(_float(step_rows))
    return tuple(steps)

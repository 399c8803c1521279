"""What a call returns: transformers' output class, with log-probabilities and counters."""

from collections.abc import Sequence
from dataclasses import dataclass

import attrs
import torch
from torch import Tensor
from transformers.generation import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput

from decodekit.batch import Keep
from decodekit.row import Row

__all__ = ["GenerateBeamOutput", "GenerateOutput", "Stats", "as_beams", "assemble"]


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


def as_beams(
    output: GenerateOutput,
    rows: Sequence[Row],
    steps: Sequence[tuple[Tensor | None, Tensor | None]],
    keep: Keep,
) -> GenerateBeamOutput:
    """The output of a search in transformers' form: scores by step and slot, and whence each token came.

    Args:
        output: of `assemble`.
        rows: of the result, in its order.
        steps: scores and logits [slots, V] of each step.
        keep: what was kept.
    """
    longest = max((len(row.parents) for row in rows), default=0)
    parents = [row.parents + [-1] * (longest - len(row.parents)) for row in rows]
    scores = tuple(_float(scores) for scores, _ in steps if scores is not None)
    logits = tuple(_float(logits) for _, logits in steps if logits is not None)
    return GenerateBeamOutput(
        sequences=output.sequences,
        sequences_scores=torch.tensor([row.score for row in rows]) if keep.scores else None,
        scores=scores if keep.scores else None,
        logits=logits if keep.logits else None,
        beam_indices=torch.tensor(parents, dtype=torch.int32).view(len(rows), longest),
        token_logprobs=output.token_logprobs,
        finish_reasons=output.finish_reasons,
        stats=output.stats,
    )


def _float(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def assemble(
    input_ids: Tensor, rows: Sequence[Row], pad_token_id: int, keep: Keep, stats: Stats
) -> GenerateOutput:
    """Put finished (or interrupted) rows side by side.

    Args:
        input_ids: int64 [P, T], the prompts as they were given.
        rows: in the order of the result; each stands after its prompt.
        pad_token_id: fills rows that ended early.
        keep: what the rows have kept.
        stats: of the call.
    """
    longest = max((len(row.tokens) for row in rows), default=0)
    prompts = input_ids[[row.prompt for row in rows]]
    new = [row.tokens + [pad_token_id] * (longest - len(row.tokens)) for row in rows]
    tail = torch.tensor(new, dtype=torch.long, device=input_ids.device).view(len(rows), longest)
    output = GenerateOutput(sequences=torch.cat([prompts, tail], dim=1))
    output.finish_reasons = tuple(row.finish_reason or "interrupted" for row in rows)
    output.stats = stats
    if keep.logprobs:
        padded = [row.logprobs + [0.0] * (longest - len(row.logprobs)) for row in rows]
        output.token_logprobs = torch.tensor(padded, dtype=torch.float64).view(len(rows), longest)
    if keep.scores and not keep.by_slot:
        output.scores = _steps([row.scores for row in rows], longest, pad_token_id)
    if keep.logits and not keep.by_slot:
        output.logits = _steps([row.logits for row in rows], longest, pad_token_id)
    return output


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

"""Stochastic beam search as a plugin, written against docs/strategies.md alone."""

import attrs
import decodekit as dk
import torch
from torch import Tensor


@attrs.frozen
class StochasticBeam(dk.Strategy):
    """Draw k sequences of each prompt without replacement, in one beam search over Gumbel noise.

    Source: Kool et al. (2019), "Stochastic Beams and Where to Find Them", arXiv 1903.06059, algorithm 1 and
        appendix B.3.
    Range: k in [1, inf).
    Shape: k rows a prompt; one forward pass of one position a step.
    Law: sets of k sequences have the law of k draws without replacement; k = 1 is plain sampling.
    Raises: ParameterError when k is not in its range.
    """

    NAME = "stochastic_beam"
    NEEDS = frozenset({dk.Capability.SELECT})
    LAWS = dk.StrategyLaws(without_replacement=True)
    SAMPLES = True
    SEARCHES = True

    k: int = dk.param(4, range="[1, inf)", help="How many sequences are drawn of each prompt.")

    def rows_per_prompt(self, num_return_sequences: int) -> int:
        """The width of the beam."""
        return max(self.k, num_return_sequences)

    def start(self, batch: dk.Batch) -> None:
        """The root has log-probability 0 and perturbation 0; the copies of a prompt wait for its children."""
        for row in batch.rows:
            row.score = row.memo["phi"] = 0.0 if row.lane == 0 else -torch.inf

    def step(self, batch: dk.Batch) -> None:
        """Perturb the children, conditioned on their parent's perturbation; the k largest go on."""
        logits = batch.logits()
        p = batch.dist(logits)
        batch.record(p, logits)
        phi = p.logprobs.double() + _column(batch.rows, "phi", p)
        noise = batch.exponential(phi.shape[-1]).double()
        cold = torch.tensor([[row.greedy] for row in batch.rows])
        gumbel = torch.where(cold, torch.zeros_like(noise), -noise.log())
        parents = torch.tensor([[row.score] for row in batch.rows], dtype=torch.float64)
        scores = torch.where(cold, phi, _conditioned(phi + gumbel, parents))
        chosen = [pair for prompt in _prompts(batch.rows) for pair in self._best(batch, scores, prompt)]
        rows, tokens = [row for row, _ in chosen], [token for _, token in chosen]
        slots = [batch.rows[row].slot for row in rows]
        found = [(float(scores[pair]), float(phi[pair])) for pair in chosen]
        batch.select(rows)
        for row, slot, (score, log_prob) in zip(batch.rows, slots, found, strict=True):
            row.score, row.memo["phi"] = score, log_prob
            row.parents.append(slot)
        batch.commit([[token] for token in tokens], p.select(rows))

    def _best(self, batch: dk.Batch, scores: Tensor, prompt: int) -> list[tuple[int, int]]:
        """The children of a prompt among its k largest, against the sequences that have ended."""
        members = [place for place, row in enumerate(batch.rows) if row.prompt == prompt]
        ended = [row.score for row in batch.finished if row.prompt == prompt]
        width = self.rows_per_prompt(batch.returns)
        flat = scores[members].flatten()
        order = flat.argsort(descending=True, stable=True).tolist()
        best = [place for place in order if flat[place] > -torch.inf]
        above = [sum(score > flat[place] for score in ended) for place in best]
        kept = [place for rank, place in enumerate(best) if rank + above[rank] < width]
        return [(members[place // scores.shape[-1]], place % scores.shape[-1]) for place in kept]

    def finish(self, batch: dk.Batch) -> None:
        """Return the sequences with the largest perturbations; blank rows where a model has too few."""
        best: list[dk.Row] = []
        for prompt in _prompts(batch.finished):
            rows = [row for row in batch.finished if row.prompt == prompt]
            rows.sort(key=lambda row: -row.score)
            missing = batch.returns - len(rows)
            best += rows[: batch.returns] + [rows[0].blank("exhausted") for _ in range(missing)]
        batch.keep(best)


def _conditioned(perturbed: Tensor, parents: Tensor) -> Tensor:
    """Shift the perturbed children so that the largest is the parent's perturbation (appendix B.3)."""
    largest = perturbed.amax(dim=-1, keepdim=True)
    v = parents - perturbed + torch.log1p(-torch.exp(perturbed - largest))
    shifted = parents - v.clamp(min=0) - torch.log1p(torch.exp(-v.abs()))
    return shifted.masked_fill(perturbed.isneginf() | parents.isneginf(), -torch.inf)


def _column(rows: list[dk.Row], name: str, p: dk.Distribution) -> Tensor:
    return torch.tensor([[row.memo[name]] for row in rows], dtype=torch.float64)


def _prompts(rows: list[dk.Row]) -> list[int]:
    return sorted({row.prompt for row in rows})


@dk.hookimpl
def register_strategies() -> list[type[dk.Strategy]]:
    """The strategy of this package."""
    return [StochasticBeam]

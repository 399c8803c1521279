"""Beam search and beam sampling."""

from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import attrs
import torch
from decodekit import Batch, Capability, Distribution, Row, Strategy, StrategyLaws, param
from torch import Tensor

__all__ = ["Beam"]


class Candidate(NamedTuple):
    """A row of the batch, continued by one token."""

    row: int
    token: int
    score: float
    ends: str | None = None


@attrs.frozen
class Beam(Strategy):
    """Keep the ``num_beams`` best continuations of each prompt, and return the best that have ended.

    The score of a sequence is the sum of its processed log-probabilities (processors see normalised
    log-probabilities here, as in transformers); the score of one that has ended is that sum over
    N^length_penalty, where N is the number of generated tokens.

    Source: Graves (2012), arXiv 1211.3711, section 2.5; Wu et al. (2016), arXiv 1609.08144, section 7 for
        length normalisation; the rules for stopping are those of transformers 5.
    Range: num_beams in [1, inf); length_penalty in [-50, 50]: above 0 favours long sequences.
    Shape: num_beams rows a prompt; one forward of one position and one token a row and step.
    Law: without do_sample deterministic; ties go to the earlier beam and the lower id. With do_sample the
        candidates are draws without replacement from the beams' joint distribution.
    Raises: ParameterError when a parameter is not in its range.
    """

    NAME: ClassVar[str] = "beam"
    NEEDS: ClassVar[frozenset[Capability]] = frozenset({Capability.SELECT})
    LAWS: ClassVar[StrategyLaws] = StrategyLaws(width="num_beams")
    SEARCHES: ClassVar[bool] = True

    num_beams: int = param(4, range="[1, inf)", neutral=1, help="Continuations that are kept of each prompt.")
    length_penalty: float = param(
        1.0, range="[-50, 50]", neutral=0.0, help="The power of the length that divides a final score."
    )
    early_stopping: bool | Literal["never"] = param(
        False,
        choices=(False, True, "never"),
        neutral=True,
        help="True: stop at num_beams ended sequences; False: when the best beam can't win at its present "
        "length; 'never': when it can't win at any length.",
    )
    do_sample: bool = param(False, help="Draw the candidates instead of taking the best.")

    @property
    def samples(self) -> bool:
        """Whether candidates are drawn."""
        return self.do_sample

    def rows_per_prompt(self, num_return_sequences: int) -> int:
        """The width of the beam."""
        return self.num_beams

    def start(self, batch: Batch) -> None:
        """The copies of a prompt are alike, so only the first may be continued at first."""
        for row in batch.rows:
            row.score = 0.0 if row.lane == 0 else -torch.inf

    def step(self, batch: Batch) -> None:
        """Choose among all continuations of a prompt's beams; the rest is forgotten."""
        logits = batch.logits()
        p = batch.dist(logits.log_softmax(-1))
        batch.record(p, logits)
        chosen = [item for group in self._candidates(batch, p) for item in self._choose(group)]
        slots = [batch.rows[item.row].slot for item in chosen]
        rows = [item.row for item in chosen]
        batch.select(rows)
        for row, item, slot in zip(batch.rows, chosen, slots, strict=True):
            row.score = item.score
            row.parents.append(slot)
        batch.commit(
            [[item.token] for item in chosen], p.select(rows), reasons=[item.ends for item in chosen]
        )
        self._leave_what_is_decided(batch)

    def _candidates(self, batch: Batch, p: Distribution) -> list[list[Candidate]]:
        """For each prompt its best continuations: enough that num_beams are left if the others end."""
        members = list(_by_prompt(batch.rows).values())
        vocab_size = p.scores.shape[-1]
        many = max(2, 1 + len(batch.stops.eos_token_ids)) * self.num_beams
        before = p.scores.new_tensor([row.score for row in batch.rows])
        total = _side_by_side(p.scores + before[:, None], members)
        keys = total
        if self.do_sample:
            noise = _side_by_side(batch.exponential(vocab_size), members, 1.0)
            drawn = (total.softmax(-1) / noise).masked_fill(total == -torch.inf, -torch.inf)
            greedy = [batch.rows[rows[0]].greedy for rows in members]
            keys = torch.where(torch.tensor(greedy, device=total.device)[:, None], total, drawn)
        best, scores = _largest(keys, many)
        if self.do_sample:
            scores = total.gather(1, torch.tensor(best, device=total.device)).tolist()
        found = [
            (rows[place // vocab_size], place % vocab_size, score)
            for rows, places, line in zip(members, best, scores, strict=True)
            for place, score in zip(places, line, strict=True)
            if score > -torch.inf
        ]
        ends = batch.ends([row for row, _, _ in found], [token for _, token, _ in found])
        groups: dict[int, list[Candidate]] = {batch.rows[rows[0]].prompt: [] for rows in members}
        for (row, token, score), reason in zip(found, ends, strict=True):
            groups[batch.rows[row].prompt].append(Candidate(row, token, score, reason))
        return list(groups.values())

    def _choose(self, group: list[Candidate]) -> list[Candidate]:
        """The beams that go on, best first, and those of the first num_beams that end."""
        going = [item for item in group if not item.ends]
        if self.do_sample:
            going.sort(key=lambda item: -item.score)
        return going[: self.num_beams] + [item for item in group[: self.num_beams] if item.ends]

    def _leave_what_is_decided(self, batch: Batch) -> None:
        """Give the beams their slots; prompts whose result can't change any more give up theirs."""
        stay = []
        for prompt, members in _by_prompt(batch.rows).items():
            going = [place for place in members if batch.rows[place].finish_reason is None]
            ended = [place for place in members if batch.rows[place].finish_reason is not None]
            for rank, place in enumerate(going):
                batch.rows[place].slot = prompt * self.num_beams + rank
            finals = [self._final(batch.rows[place]) for place in ended]
            finals += [self._final(row) for row in batch.finished if row.prompt == prompt]
            decided = bool(going) and self._decided(batch, batch.rows[going[0]], sorted(finals, reverse=True))
            stay += ended if decided else members
        if len(stay) < len(batch.rows):
            batch.select(stay)

    def _decided(self, batch: Batch, best: Row, finals: list[float]) -> bool:
        if len(finals) < self.num_beams:
            return False
        if self.early_stopping is True:
            return True
        length = len(best.tokens)
        if self.early_stopping == "never" and self.length_penalty > 0:
            length = batch.stops.max_new_tokens
        hope: float = best.score / length**self.length_penalty
        return hope <= finals[self.num_beams - 1]

    def _final(self, row: Row) -> float:
        final: float = row.score / len(row.tokens) ** self.length_penalty
        return final

    def finish(self, batch: Batch) -> None:
        """Return the best of each prompt; where there are too few sequences, blank rows fill the result."""
        for row in batch.finished:
            row.score = self._final(row)
        best: list[Row] = []
        for members in _by_prompt(batch.finished).values():
            rows = sorted((batch.finished[place] for place in members), key=lambda row: -row.score)
            missing = batch.returns - len(rows)
            best += rows[: batch.returns] + [rows[0].blank("exhausted") for _ in range(missing)]
        batch.keep(best)


def _side_by_side(values: Tensor, members: list[list[int]], fill: float = -torch.inf) -> Tensor:
    """Values [B, V] with a line for each prompt, [P, M * V]; prompts with fewer rows are filled up."""
    most = max(map(len, members))
    if [row for rows in members for row in rows] == [*range(most * len(members))]:
        return values.reshape(len(members), -1)
    index = torch.tensor([rows + rows[:1] * (most - len(rows)) for rows in members], device=values.device)
    lines = values[index]
    if any(len(rows) < most for rows in members):
        counts = torch.tensor([len(rows) for rows in members], device=values.device)
        missing = torch.arange(most, device=values.device) >= counts[:, None]
        lines = lines.masked_fill(missing[:, :, None], fill)
    return lines.flatten(1)


def _largest(keys: Tensor, count: int) -> tuple[list[list[int]], list[list[float]]]:
    """The indices of each line's largest, best first, and these; ties go to the lowest index.

    topk does not promise the latter, so that lines with ties are sorted.
    """
    count = min(count, keys.shape[1])
    found = keys.topk(min(count + 1, keys.shape[1]), dim=1)
    best, values = found.indices.tolist(), found.values.tolist()
    for line, own in enumerate(values):
        if any(one == other > -torch.inf for one, other in pairwise(own)):
            inside = (keys[line] >= own[count - 1]).nonzero()[:, 0]
            best[line] = inside[keys[line][inside].argsort(descending=True, stable=True)].tolist()
    return [line[:count] for line in best], [line[:count] for line in values]


def _by_prompt(rows: list[Row]) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.prompt, []).append(place)
    return groups

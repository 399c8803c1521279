"""Along a draft: the target's distributions one column after another, and the probabilities of a draft."""

import attrs
import torch
from decodekit import Batch, Distribution, Draft

__all__ = ["Walk", "certain", "probabilities_of"]


class Walk:
    """The target's distributions along the drafts, one column after another; rows may stand still.

    Attributes:
        kept: for each row the part of its draft that it has gone along.
    """

    def __init__(self, batch: Batch, draft: Draft) -> None:
        self._batch = batch
        self._draft = draft.tokens
        self._logits = batch.logits(draft.tokens)
        self._guided = batch.guide(self._logits, draft.tokens)
        self._columns: list[Distribution] = []
        self.kept: list[list[int]] = [[] for _ in batch.rows]

    def next(self) -> Distribution:
        """The distribution [B, V] of what follows each row's `kept`."""
        lengths = [len(tokens) for tokens in self.kept]
        after = self._columns[-1] if self._columns else None
        drafts = self.kept if self._columns else None
        p = self._batch.dist(_at(self._guided, lengths), drafts, after=after, guided=False)
        guided = self._guided is not self._logits
        self._columns.append(attrs.evolve(p, logits=_at(self._logits, lengths)) if guided else p)
        return p

    def drafted(self, row: int) -> int | None:
        """The row's next drafted token."""
        place = len(self.kept[row])
        return self._draft[row][place] if place < len(self._draft[row]) else None

    def go_on(self, row: int, goes: bool) -> None:
        """Take the row along its next drafted token, if it goes."""
        self.kept[row] += [self._draft[row][len(self.kept[row])]] if goes else []

    def distribution(self) -> Distribution:
        """All columns, [B, n, V]."""
        return Distribution.stack(self._columns)


def _at(logits: torch.Tensor, columns: list[int]) -> torch.Tensor:
    """A column [B, V] of logits [B, n, V] for each row; a view, where it is the same one."""
    if len(set(columns)) == 1:
        return logits[:, columns[0]]
    rows = torch.arange(len(columns), device=logits.device)
    return logits[rows, torch.tensor(columns, device=logits.device)]


def certain(scores: torch.Tensor, greedy: torch.Tensor) -> torch.Tensor:
    """Probabilities [B, n, V]; rows at temperature 0 give all to the most probable token."""
    sharp = torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores)
    return torch.where(greedy[:, None, None], sharp, scores.softmax(-1))


def probabilities_of(
    draft: Draft, drafts: torch.Tensor, counts: torch.Tensor, greedy: torch.Tensor, vocab_size: int
) -> torch.Tensor:
    """What the drafted tokens were drawn from, float64 [B, K, V]; 0 behind the end of a draft."""
    longest = drafts.shape[1]
    if draft.q and longest:
        scores = torch.stack([column.scores.double().cpu() for column in draft.q[:longest]], dim=1)
        q = certain(scores, greedy)
    else:
        q = torch.nn.functional.one_hot(drafts, vocab_size).double()
    return q.masked_fill((torch.arange(longest) >= counts[:, None])[:, :, None], 0.0)

"""The largest logits of each row: what a chain works on where it need not see the whole vocabulary."""

from collections.abc import Callable, Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["WIDTH", "Cut", "Head", "argmax"]

WIDTH = 64
"""How many of the largest logits are looked at first."""
_BLOCK = 64
"""The k largest logits stand in the k blocks with the largest maxima; only those are searched."""
_SMALL = 1 << 14
"""So many numbers are searched as they are."""
_MARGIN = 2e-5
"""What rounding may do in float32 to a probability, or to a threshold among the logits."""
_DEEP = 70.0
"""So far below the largest logit probabilities begin to be 0 in float32, and no longer tell tokens apart."""


@attrs.frozen(eq=False)
class Cut:
    """Where a truncation cuts the rows: a token stays when its logit is at least the floor.

    Attributes:
        floor: [B, 1].
        clear: bool [B], rows of which this is sure whatever the rounding; None when it is of all. The
            others are left to the processor itself.
    """

    floor: Tensor
    clear: Tensor | None = None


@attrs.frozen(eq=False, slots=False)
class Head:
    """The C largest logits of each row, in descending order.

    Attributes:
        logits: [B, C] in float32 or better; -inf is an impossible token.
        ids: int64 [B, C], whose logits they are; V where a row has fewer tokens.
        vocab_size: V.
        complete: whether every other token is impossible.
    """

    logits: Tensor
    ids: Tensor
    vocab_size: int
    complete: bool
    _full: Callable[[], Tensor] | None = None

    @classmethod
    def of(cls, logits: Tensor, width: int = WIDTH) -> "Head":
        """The head of logits [B, V]: at least ``width`` of them, or all."""
        vocab_size = logits.shape[-1]
        width = min(max(1, width), vocab_size)
        largest, ids = _largest(logits, width)
        return cls(largest, ids, vocab_size, complete=width == vocab_size, full=lambda: logits)

    def grown(self) -> "Head":
        """The head of the same rows, many times as wide."""
        return Head.of(self.whole, 16 * self.ids.shape[1])

    def to(self, logits: Tensor, whole: Callable[[Tensor], Tensor]) -> "Head":
        """The head after a step that keeps the order; ``whole`` is the same step for all logits."""
        return Head(logits, self.ids, self.vocab_size, self.complete, lambda: whole(self.whole))

    @cached_property
    def whole(self) -> Tensor:
        """Every possible logit of the rows, [B, V] or [B, C], in whatever order."""
        return self.logits if self.complete or self._full is None else self._full()

    @property
    def largest(self) -> Tensor:
        """The largest logit of each row, [B, 1]."""
        return self.logits[:, :1]

    @cached_property
    def log_total(self) -> Tensor:
        """The logarithm of the sum of all exponentials of each row, [B, 1]: exact, not of the head alone."""
        # `logsumexp` would look for the largest once more.
        return self.whole.sub(self.largest).exp_().sum(dim=-1, keepdim=True).log_() + self.largest

    @cached_property
    def probs(self) -> Tensor:
        """The probabilities of the head's tokens, [B, C]; they sum to 1 only where it is complete."""
        if self.complete:
            return self.logits.softmax(dim=-1)
        return (self.logits - self.log_total).exp()

    @cached_property
    def entropy(self) -> Tensor:
        """The entropy of each row in nats, [B, 1], over all tokens."""
        logp = self.whole - self.log_total
        return -(logp.exp() * logp).nansum(dim=-1, keepdim=True)

    def near(self, floor: Tensor, least: int | Tensor = 1) -> Cut:
        """A cut at a floor [B, 1] that was computed, so that rounding blurs it; ``least`` tokens stay."""
        blur = _MARGIN * (1 + self.largest.abs() / 64)
        clear = ((self.logits - floor).abs() > blur).all(dim=-1) & (floor > self.largest - _DEEP).squeeze(-1)
        return self.first((self.logits >= floor).sum(dim=-1, keepdim=True).clamp(min=least), clear)

    def best(self, k: int | Tensor) -> Cut:
        """A cut after the k (int64 [B, 1] as well) most probable tokens and what ties with the last."""
        size = self.logits.shape[-1]
        if isinstance(k, Tensor):
            floor = self.logits.gather(-1, k.clamp(max=size) - 1)
        else:
            floor = self.logits[:, min(k, size) - 1 : min(k, size)]
        return Cut(floor, None if self.complete else (self.logits[:, -1:] < floor).squeeze(-1))

    def mass(self, p: float | Tensor, least: int | Tensor = 1) -> Cut:
        """A cut after the shortest prefix with the probability ``p``, and at least ``least`` tokens.

        Both may be tensors [B, 1].
        """
        before = self.probs.cumsum(dim=-1).sub_(self.probs)  # the mass of all tokens above each one
        clear = ((before[:, 1:] - p).abs_() > _MARGIN).all(dim=-1)
        if isinstance(least, Tensor) or least > 1:
            return self.first((before < p).sum(dim=-1, keepdim=True).clamp(min=least), clear)
        out = before >= p
        out[:, 0] = False
        floor = self.logits.masked_fill(out, torch.inf).amin(dim=-1, keepdim=True)
        clear &= ((self.logits < floor) == out).all(dim=-1)  # else the last one ties with one that is out
        return Cut(floor, clear if self.complete else clear & out[:, -1])

    def first(self, count: Tensor, clear: Tensor) -> Cut:
        """A cut after the first ``count`` tokens, int64 [B, 1]; not clear where the last of them ties."""
        size = self.logits.shape[-1]
        inside = count.clamp(1, size)
        last, after = (self.logits.gather(-1, (inside - back).clamp(max=size - 1)) for back in (1, 0))
        sure = (last > after) | (self.complete & (inside == size))
        return Cut(last, clear & sure.squeeze(-1))

    def cut(self, floor: Tensor) -> "Head":
        """The head with what is below the floor [B, 1] made impossible, like all that is not in it."""
        return self.kept(floor).trimmed()

    def kept(self, floor: Tensor) -> "Head":
        """`cut` without the look at how many tokens are left."""
        kept = self.logits.masked_fill(self.logits < floor, -torch.inf)
        return Head(kept, self.ids, self.vocab_size, complete=True)

    def trimmed(self) -> "Head":
        """The head without the columns at the end in which no row has a token."""
        width = max(1, int((self.logits > -torch.inf).any(dim=0).sum()))
        return Head(self.logits[:, :width], self.ids[:, :width], self.vocab_size, complete=True)

    def sorted(self) -> "Head":
        """The head in descending order, tokens that tie in the order of their ids."""
        ids, order = self.ids.sort(dim=-1)
        logits, place = self.logits.gather(-1, order).sort(dim=-1, descending=True, stable=True)
        return Head(logits, ids.gather(-1, place), self.vocab_size, self.complete)

    @staticmethod
    def together(heads: "Sequence[Head]") -> "Head":
        """The rows of complete heads, one after the other."""
        missing = [max(other.ids.shape[1] for other in heads) - head.ids.shape[1] for head in heads]
        logits = [
            pad(head.logits, (0, more), value=-torch.inf) if more else head.logits
            for head, more in zip(heads, missing, strict=True)
        ]
        ids = [
            pad(head.ids, (0, more), value=head.vocab_size) if more else head.ids
            for head, more in zip(heads, missing, strict=True)
        ]
        return Head(torch.cat(logits), torch.cat(ids), heads[0].vocab_size, complete=True)

    def dense(self) -> Tensor:
        """The logits of the rows in their places, [B, V]."""
        if not self.complete:
            return self.whole
        # A row with fewer tokens than others is filled with the id V, which is cut off again.
        wide = self.logits.new_full((len(self.ids), self.vocab_size + 1), -torch.inf)
        return wide.scatter_(1, self.ids, self.logits)[:, : self.vocab_size]

    def select(self, rows: Tensor | slice) -> "Head":
        """The given rows."""
        given = self.logits[rows], self.ids[rows], self.vocab_size, self.complete
        return Head(*given) if self.complete else Head(*given, lambda: self.whole[rows])


def _largest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest logits of each row [B, k] and their ids, as `torch.topk` but for ties."""
    rows, vocab_size = logits.shape
    blocks = vocab_size // _BLOCK
    if not logits.is_cpu or k > blocks // 4:
        return logits.topk(k, dim=-1)
    inside = blocks * _BLOCK
    peaks = logits[:, :inside].reshape(rows, blocks, _BLOCK).amax(dim=-1)
    chosen = peaks.topk(k, dim=-1, sorted=False).indices
    ids = (chosen[:, :, None] * _BLOCK + torch.arange(_BLOCK)).flatten(1)
    if inside < vocab_size:
        ids = torch.cat([ids, torch.arange(inside, vocab_size).expand(rows, -1)], dim=1)
    largest, places = logits.gather(1, ids).topk(k, dim=-1)
    return largest, ids.gather(1, places)


def argmax(values: Tensor) -> Tensor:
    """Where the largest value of each row [B, V] stands, int64 [B]; ties go to the lowest index.

    On the CPU `torch.argmax` compares one by one, and a maximum of blocks is ten times as fast.
    """
    rows, size = values.shape
    if not values.is_cpu or values.numel() <= _SMALL or size < 2 * _BLOCK:
        return values.argmax(dim=-1)
    blocks = size // _BLOCK
    inside = blocks * _BLOCK
    peaks = values[:, :inside].reshape(rows, blocks, _BLOCK).amax(dim=-1)
    ids = peaks.argmax(dim=-1, keepdim=True) * _BLOCK + torch.arange(_BLOCK)
    if inside < size:
        ids = torch.cat([ids, torch.arange(inside, size).expand(rows, -1)], dim=1)
    return ids.gather(1, values.gather(1, ids).argmax(dim=-1, keepdim=True))[:, 0]

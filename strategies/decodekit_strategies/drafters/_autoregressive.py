"""Drafting token by token from some model's logits."""

from collections.abc import Callable, Sequence

from decodekit import Batch, Distribution, Draft, EmptySupportError, Pick
from torch import Tensor

__all__ = ["decode_drafts"]


def decode_drafts(
    batch: Batch,
    lengths: Sequence[int],
    pick: Pick,
    threshold: float,
    logits_after: Callable[[list[list[int]]], Tensor],
) -> Draft:
    """Decode as the target does, with its chain; a row stops at its length, at EOS, or when unsure.

    Args:
        batch: the live rows.
        lengths: the most tokens for each row.
        pick: takes a token of every row.
        threshold: a row's draft ends with a token that the drafter gives less than this.
        logits_after: raw logits [B, V] after each row's draft so far.
    """
    drafts: list[list[int]] = [[] for _ in batch.rows]
    open_rows = [most > 0 for most in lengths]
    q: list[Distribution] = []
    while any(open_rows):
        try:
            after = q[-1] if q else None
            q.append(batch.dist(logits_after(drafts), drafts, after=after, guided=False))
        except EmptySupportError:  # the chain allows nothing that this drafter could say
            break
        tokens = pick(q[-1])
        sure = (q[-1].probs.gather(1, tokens[:, None])[:, 0] >= threshold).tolist()
        for row, token in enumerate(tokens.tolist()):
            if open_rows[row]:
                drafts[row] = [*drafts[row], token]
                ends = token in batch.stops.eos_token_ids
                open_rows[row] = sure[row] and not ends and len(drafts[row]) < lengths[row]
    return Draft(drafts, q)

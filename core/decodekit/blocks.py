"""Blocks of tokens, one a row: what is forced to come, what of a draft was right, what is committed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from decodekit.chain import Chain
from decodekit.distribution import Distribution, Drafts
from decodekit.row import Row
from decodekit.session import Session
from decodekit.strategy import Capability

__all__ = ["advance", "as_blocks", "as_column", "forced_tokens", "verified"]

_NEEDS = {Capability.ROLLBACK, Capability.POSITIONS}


def as_blocks(tokens: Tensor | Drafts) -> list[list[int]]:
    """Tokens int64 [B], [B, n] or one sequence a row, as one list a row."""
    if isinstance(tokens, Tensor):
        tokens = tokens.tolist()
    return [[block] if isinstance(block, int) else list(block) for block in tokens]


def as_column(tokens: Tensor | Drafts, each: list[int], device: torch.device) -> Tensor:
    """One token a row on a device, int64 [B]: where it stands already, or from the list of them."""
    if isinstance(tokens, Tensor) and tokens.dtype == torch.long:
        return tokens.view(-1).to(device)
    return torch.tensor(each, device=device)


def advance(chains: Sequence[Chain], rows: Sequence[Row], blocks: Drafts, dist: Distribution) -> None:
    """Take the states of the rows' chains over the blocks, of which token ``j`` is of column ``j``."""
    for position, (row, block) in enumerate(zip(rows, blocks, strict=True)):
        for column, token in enumerate(block if row.states else ()):
            row.states = chains[row.chain].advance(row.states, token, dist.memories[position][column])


def forced_tokens(
    rows: Sequence[Row], chains: Sequence[Chain], max_new_tokens: int, session: Session
) -> list[list[int]] | None:
    """For each row the tokens that its chain says must come, with room for one more.

    Args:
        rows: the B rows.
        chains: the chains that they name.
        max_new_tokens: the most tokens of a row.
        session: scores a draft at once, and takes it back when it is wrong, if it can and has room.

    Returns:
        None when nothing is forced, or the session can't do that.
    """
    if not any(row.states for row in rows) or not session.offers >= _NEEDS:
        return None
    most = [max_new_tokens - len(row.tokens) - 1 for row in rows]
    if session.room is not None:  # the token before the block is fed with it
        most = [max(min(count, session.room - 1), 0) for count in most]
    known = [chains[row.chain].forced(row.states)[:count] for row, count in zip(rows, most, strict=True)]
    return known if any(known) else None


def verified(drafts: Drafts | None, tokens: Tensor) -> Tensor | list[list[int]]:
    """What to commit: each row's draft as far as it is what was chosen there, and one token more.

    Args:
        drafts: hypothetical tokens of each row, of which the longest has K; None is none.
        tokens: what was chosen, int64 [B, K + 1]; without drafts [B].
    """
    if drafts is None:
        return tokens
    blocks = []
    for draft, chosen in zip(drafts, tokens.tolist(), strict=True):
        right = next((k for k, token in enumerate(draft) if token != chosen[k]), len(draft))
        blocks.append(chosen[: right + 1])
    return blocks

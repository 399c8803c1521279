"""Blocks of tokens, one a row: what is forced to come, what of a draft was right, what is committed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from decodekit.chain import Chain
from decodekit.distribution import Distribution, Drafts
from decodekit.errors import PluginError
from decodekit.late import OnItsWay
from decodekit.row import Row
from decodekit.session import Session
from decodekit.strategy import Capability

__all__ = ["advance", "as_blocks", "as_column", "forced_tokens", "longest_of", "verified"]

_NEEDS = {Capability.ROLLBACK, Capability.POSITIONS}


def as_blocks(tokens: Tensor | OnItsWay | Drafts, vocab_size: int) -> list[list[int]]:
    """Tokens int64 [B], [B, n] or one sequence a row, as one list a row.

    Raises:
        PluginError: something is no token of a vocabulary of that size.
    """
    given: Sequence[Any] = tokens.tolist() if isinstance(tokens, (Tensor, OnItsWay)) else tokens
    blocks = [[*block] if isinstance(block, (list, tuple)) else [block] for block in given]
    for block in blocks:
        for token in block:
            if type(token) is not int or not 0 <= token < vocab_size:
                message = (
                    f"commit got {token!r} as a token: it takes int64 [B] or [B, n], or one list of ints a "
                    f"row, each below {vocab_size}"
                )
                raise PluginError(message)
    return blocks


def longest_of(blocks: list[list[int]], rows: int, columns: int, *, again: bool) -> int:
    """The length of the longest block.

    Args:
        blocks: what is committed.
        rows: how many there are.
        columns: of the distribution that they are from.
        again: whether something was committed in this step already.

    Raises:
        PluginError: the blocks do not fit these.
    """
    longest = max(map(len, blocks), default=0)
    if len(blocks) != rows or longest > columns or again:
        message = (
            f"commit got {len(blocks)} blocks (the longest has {longest} tokens) for {rows} rows and "
            f"{columns} columns of the distribution; give one block a row, once a step"
        )
        raise PluginError(message)
    return longest


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

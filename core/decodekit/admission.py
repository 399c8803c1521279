"""Continuous admission: rows that have ended leave a running batch, and waiting prompts take their places.

Prompts that join are fed together and make their first step by themselves. Then they stand where all rows
stand between two steps: their last token is not fed yet. So the caches can be laid side by side, and no row
can tell when it came.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import attrs
import torch

from decodekit import caches
from decodekit.batch import Batch
from decodekit.chain import Chain
from decodekit.errors import PluginError
from decodekit.model_inputs import InputNames
from decodekit.row import Row
from decodekit.stopping import StopRules
from decodekit.strategy import Strategy
from decodekit.wrapped import PrefixConstraint, WrappedProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from decodekit.call import Call

__all__ = ["OpenBatch", "OwnStops", "can_admit", "decode_openly"]


@attrs.define(eq=False, kw_only=True)
class OwnStops(StopRules):
    """Stopping rules where each prompt has its own; criteria see the rows of one prompt, and no others.

    Attributes:
        rules: those of each prompt, by its number.
    """

    rules: dict[int, StopRules] = attrs.field(factory=dict)

    @classmethod
    def of_each(cls, rules: dict[int, StopRules]) -> "OwnStops":
        """The rules of these prompts; what is no prompt's own is the first one's."""
        first = next(iter(rules.values()))
        shared = {field.name: getattr(first, field.name) for field in attrs.fields(StopRules)}
        longest = max(rule.max_new_tokens for rule in rules.values())
        return cls(**{**shared, "max_new_tokens": longest, "rules": rules})

    def join(self, other: "OwnStops") -> None:
        """Add the rules of further prompts."""
        self.rules.update(other.rules)
        self.max_new_tokens = max(self.max_new_tokens, other.max_new_tokens)

    def cut(self, row: Row, block: Sequence[int]) -> tuple[list[int], str | None]:
        """The part of ``block`` that row keeps, and why it ends there, if it does."""
        return self.rules[row.prompt].cut(row, block)

    def cuts(
        self, rows: Sequence[Row], blocks: Sequence[Sequence[int]], ended: Sequence[Row] = ()
    ) -> tuple[list[list[int]], list[str | None]]:
        """`cut` for every row, and its prompt's criteria, which see no other rows."""
        cuts = [self.cut(row, block) for row, block in zip(rows, blocks, strict=True)]
        for prompt in {row.prompt for row in rows if self.rules[row.prompt].criteria}:
            places = [place for place, row in enumerate(rows) if row.prompt == prompt]
            alone = [_alone(rows[place]) for place in places]
            left = [_alone(row) for row in ended if row.prompt == prompt]
            found = self.rules[prompt].cuts(alone, [blocks[place] for place in places], left)
            for place, block, reason in zip(places, *found, strict=True):
                cuts[place] = block, reason
        return [block for block, _ in cuts], [reason for _, reason in cuts]

    def ends(self, rows: Sequence[Row], tokens: Sequence[int], ended: Sequence[Row] = ()) -> list[str | None]:
        """Why each row ends with one more token; None where it does not."""
        return self.cuts(rows, [[token] for token in tokens], ended)[1]


def _alone(row: Row) -> Row:
    """The row in the slot that it has in a call of its prompt alone."""
    twin = copy.copy(row)
    twin.slot = row.lane
    return twin


class OpenBatch(Batch):
    """A batch that rows join while it runs; its rows are numbered by the prompts of the whole job."""

    stops: OwnStops

    def admit(self, other: "OpenBatch") -> None:
        """Let the rows of another batch go on here; it is not used any more.

        Both have the same model and strategy and stand between two steps; here some row lives.

        Raises:
            PluginError: the strategy keeps something for the call as a whole.
        """
        if self.memo or other.memo:
            message = (
                f"the strategy declares ADMITS, and keeps {', '.join(self.memo | other.memo)} in batch.memo: "
                "it must keep what it needs in row.memo, or not declare it"
            )
            raise PluginError(message)
        self.finished += other.finished
        self._lanes.update(other._lanes)
        self.stops.join(other.stops)
        if not other.rows:
            return
        chains = [self._chains[row.chain] for row in self.rows]
        chains += [other._chains[row.chain] for row in other.rows]
        for name, tracked in self._sessions.items():
            tracked.join(other._sessions[name])
        self._ledger.join(other._ledger)
        self.rows = [*self.rows, *other.rows]
        self._blocks = [[] for _ in self.rows]
        self._renumber(chains)

    def _renumber(self, chains: Sequence[Chain]) -> None:
        """Rows stand in the slots of their places; of the chains those are kept that a row has."""
        kept = list({id(chain): chain for chain in chains}.values())
        numbers = {id(chain): number for number, chain in enumerate(kept)}
        self._chains = kept
        self._unprocessed = all(chain.is_empty for chain in kept)
        self._stateful = any(chain.stateful for chain in kept)
        for slot, (row, chain) in enumerate(zip(self.rows, chains, strict=True)):
            row.slot, row.chain = slot, numbers[id(chain)]

    def leave(self) -> list[Row]:
        """The rows of the prompts of which no row lives any more; they are forgotten here."""
        live = {row.prompt for row in self.rows}
        gone = [row for row in self.finished if row.prompt not in live]
        self.finished = [row for row in self.finished if row.prompt in live]
        for prompt in {row.prompt for row in gone}:
            del self._lanes[prompt], self.stops.rules[prompt]
        return gone


def can_admit(model: "PreTrainedModel", call: "Call") -> bool:
    """Whether prompts may join a running batch of such calls.

    The strategy must say so; the model must count positions by row and have no inputs of its own; the cache
    must grow; and nothing may look at the batch as transformers shows it.
    """
    names = InputNames.of(model)
    seen = (WrappedProcessor, PrefixConstraint)
    cache = call.batch.target.cache
    return (
        call.strategy.ADMITS
        and not call.strategy.foreign_models
        and call.request.model_inputs.is_empty
        and names.by_row
        and not (names.prefixed or names.updates)
        and cache is not None
        and caches.can_join(cache)
        and not any(isinstance(item, seen) for chain in call.chains for item in chain.processors)
    )


def decode_openly(
    wait: Callable[[int], OpenBatch | None], strategy: Strategy, size: int, least: int
) -> Iterator[list[Row]]:
    """Decode until no row lives and no prompt waits; yields the rows of the prompts that each step ends.

    Gradients are off while this function runs and as the caller had them in between.

    Args:
        wait: gives a batch of the next prompts, not fed yet, with at most so many rows; None when none waits.
        strategy: what to do with the rows.
        size: the most rows at a time.
        least: so many rows must be free before prompts are asked for.
    """
    batch = None
    while True:
        live = len(batch.rows) if batch is not None else 0
        with torch.no_grad():
            if batch is not None and not live:
                strategy.finish(batch)
            fresh = wait(size - live) if not live or size - live >= least else None
            if fresh is not None:
                fresh.prefill()
                strategy.start(fresh)
            running = fresh or batch
            if running is None or not running.rows:
                return
            strategy.step(running)
            running.settle()
            if fresh is not None and batch is not None and live:
                batch.admit(fresh)
            else:
                batch = running
        yield batch.leave()

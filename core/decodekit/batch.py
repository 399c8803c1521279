"""The batch of live rows: all that a strategy looks at, and all that it may do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from decodekit.blocks import advance, as_blocks, as_column, forced_tokens, longest_of
from decodekit.chain import Chain, wide
from decodekit.distribution import Distribution, Drafts, process, unprocessed
from decodekit.draws import draw, positions
from decodekit.errors import PluginError
from decodekit.forward import Forward
from decodekit.glimpse import side_by_side
from decodekit.guidance import Guidance
from decodekit.heads import Ahead
from decodekit.keep import Keep, Recorder
from decodekit.late import begun
from decodekit.ledger import Ledger
from decodekit.model_inputs import ModelInputs
from decodekit.randomness import Noise, Purpose
from decodekit.row import NEGATIVE, TARGET, Lanes, Row, give_free_slots, row_numbers
from decodekit.session import Session
from decodekit.stopping import StopRules
from decodekit.traces import Trace
from decodekit.tracking import Branch, OwnSession, Sessions, TrackedSession

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Batch"]


class Batch:
    """The rows that are being decoded, with everything that belongs to them.

    A strategy sees committed tokens and hypothetical ones (drafts) only; caches, masks, positions and
    the taking back of rejected drafts are followed up by themselves.

    Attributes:
        rows: the live rows.
        finished: the rows that have ended, in the order in which they did.
        stops: when rows end.
        returns: how many rows of each prompt the caller wants.
        recorder: what is kept of every committed token.
        memo: the strategy's own values for the whole call.
        details: what the strategy tells of itself in the statistics, by name.
        late: whether the next pass begins before tokens are read, see `decodekit.late`.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        session: Session,
        *,
        chains: Sequence[Chain] = (Chain(),),
        noise: Noise,
        stops: StopRules,
        keep: Keep = Keep(),  # frozen
        pad_token_id: int = 0,
        copies: int = 1,
        returns: int = 1,
        hidden: bool = False,
        guidance: Guidance | None = None,
    ) -> None:
        """Start with one row a prompt; nothing is computed yet.

        Args:
            rows: one for each prompt.
            session: the target model's; not fed yet.
            chains: the chains that the rows name.
            noise: where draws come from.
            stops: when rows end.
            keep: what is kept of every committed token.
            pad_token_id: what stands left of shorter rows in a history.
            copies: rows a prompt; the prompt is fed once.
            returns: rows a prompt in the result.
            hidden: whether forwards give hidden states.
            guidance: what draws the distribution away from a negative prompt.
        """
        self.rows: list[Row] = list(rows)
        self.finished: list[Row] = []
        self.stops = stops
        self.memo: dict[str, Any] = {}
        self.details: dict[str, Any] = {}
        self._chains = chains
        self._noise = noise
        self.recorder = Recorder(keep, len(rows) * copies)
        self.returns = returns
        self._copies = copies
        self._hidden = hidden
        hidden_states = hidden or keep.hidden_states
        target = TrackedSession(session, TARGET, hidden=hidden_states, attentions=keep.attentions)
        self._sessions = Sessions({TARGET: target})
        self._early = [TARGET]  # sessions that are fed once for each prompt
        self._guidance = guidance
        if guidance is not None:
            self._sessions[NEGATIVE] = TrackedSession(guidance.session, NEGATIVE)
            self._early.append(NEGATIVE)
        self._last: list[Row] = []  # the rows as they stand in the target's cache at the end
        prompts = [row.prompt_tokens for row in rows]
        self._ledger = Ledger(prompts, pad_token_id, stops.max_new_tokens, session.device)
        self._lanes = Lanes.of(rows)
        self._unprocessed = all(chain.is_empty for chain in chains)
        self._stateful = any(chain.stateful for chain in chains)
        self._blocks: list[list[int]] = [[] for _ in rows]  # of this step
        self._tokens: Tensor | None = None  # the same, int64 [B], when each block is one token
        self.late = self._committed = False

    # What a strategy asks

    @property
    def positions(self) -> list[int]:
        """For each row how many tokens it has, prompt included: the position of its next token."""
        return [row.length for row in self.rows]

    def forward(self, drafts: Drafts | None = None, *, session: str = TARGET, last: bool = False) -> Forward:
        """Logits [B, K + 1, V] (and hidden states) after the committed tokens and each draft token.

        Args:
            drafts: hypothetical next tokens of each row, of which the longest has K; may be ragged. The
                further columns of a shorter row repeat its last one. Left out, K is 0.
            session: which model.
            last: give only the column after the whole draft, [B, 1, V]; what is known is not recomputed.
        """
        if drafts is not None and len(drafts) != len(self.rows):
            message = f"forward got {len(drafts)} drafts for {len(self.rows)} rows; give one a row"
            raise PluginError(message)
        output = self._sessions[session].forward(self.rows, drafts, last=last)
        if session == TARGET:
            self.recorder.see(output)
        return output

    def logits(self, drafts: Drafts | None = None, *, session: str = TARGET, last: bool = False) -> Tensor:
        """Raw logits of the next token, [B, V]; with drafts [B, K + 1, V] unless ``last``, see `forward`.

        They are float32 or better: a softmax in half precision would not be transformers' any more.
        """
        output = wide(self.forward(drafts, session=session, last=last).logits)
        return output[:, 0] if drafts is None or last else output

    def own_logits(self, sequences: Sequence[Sequence[int]], *, session: str) -> Tensor:
        """Raw logits [B, V'] of one of the strategy's ``foreign_models``, after all tokens of each row.

        There is at least one in each; what was fed before is not fed again.
        """
        return wide(self._sessions[session].forward_own(sequences).logits[:, 0])

    def branch(self, model: "PreTrainedModel", layers: int) -> Branch | None:
        """A session of ``model`` that begins with what the target's first ``layers`` layers have cached.

        What it is fed is forgotten. None in the first step, when nothing is left to be fed.
        """
        target = self._sessions[TARGET].session
        if not all(row.since(held, TARGET) for row, held in zip(self.rows, target.lengths, strict=True)):
            return None
        return Branch(self.rows, target, model, layers)

    def ahead(self, depth: int) -> Ahead | None:
        """A draft of the first ``depth`` of the strategy's heads, after the committed tokens.

        None in the first step, when the target has not been asked what follows the last of these.
        """
        held = zip(self.rows, self.target.lengths, strict=True)
        one_left = all(len(row.since(length, TARGET)) == 1 for row, length in held)
        return Ahead(self.rows, self.target, depth) if one_left else None

    def guide(self, logits: Tensor, drafts: Drafts | None = None) -> Tensor:
        """The target's logits, drawn away from what a negative prompt gives; without guidance as they are."""
        if self._guidance is None:
            return logits
        last = drafts is not None and logits.dim() == 2
        return self._guidance.apply(logits, self.logits(drafts, session=NEGATIVE, last=last))

    def dist(
        self,
        logits: Tensor,
        drafts: Drafts | None = None,
        *,
        after: Distribution | None = None,
        guided: bool = True,
    ) -> Distribution:
        """The distribution of the next token under each row's chain: the only way to a probability.

        Args:
            logits: [B, V], or [B, K + 1, V] with the ``drafts`` at which they were computed.
            drafts: as for `forward`; logits [B, V] then follow the whole draft of each row.
            after: in that case, the distribution before the last drafted token; stateful processors
                need it.
            guided: False for logits of another model than the target, and for those that `guide` gave.
        """
        if self._guidance is not None and guided:
            p = self.dist(self.guide(logits, drafts), drafts, after=after, guided=False)
            return attrs.evolve(p, logits=logits)
        if self._unprocessed:
            return unprocessed(self.rows, logits, drafts, late=self.late)
        return process(self._chains, self.rows, self._ledger.pinned(self.rows), logits, drafts, after)

    def draw(self, dist: Distribution, purpose: Purpose = Purpose.TOKEN) -> Tensor:
        """Draw a token from every row and column, int64 [B] or [B, K + 1].

        Column ``j`` is drawn with the noise of the position ``j`` further on, so a draw at a drafted
        position is the one that plain decoding makes there. Rows at temperature 0 take the argmax.
        """
        if dist.logits.dim() == 2:
            return draw(self._noise, self.rows, dist.columns[0], dist.offsets or 0, purpose)
        drawn = [draw(self._noise, self.rows, scores, by, purpose) for by, scores in enumerate(dist.columns)]
        return torch.stack(drawn, dim=1)

    def forced(self) -> list[list[int]] | None:
        """For each row the tokens that must come next, a draft for `logits` and `dist`; None: no draft."""
        if self._stateful:
            return forced_tokens(self.rows, self._chains, self.stops.max_new_tokens, self.target)
        return None

    def exponential(self, vocab_size: int, purpose: Purpose = Purpose.TOKEN) -> Tensor:
        """Exp(1) noise [B, V] for every row's next position: the token of the largest p / noise is a draw.

        The n largest of them are n draws without replacement (Efraimidis and Spirakis 2006; Kool et al.
        2019, arXiv:1903.06059).
        """
        places = positions(self.rows, 0)
        return self._noise.exponential(self.rows, places, vocab_size, purpose, self.target.device)

    def ends(self, rows: Sequence[int], tokens: Sequence[int]) -> list[str | None]:
        """Why each of the rows would end if it committed the token; None where it would not."""
        return self.stops.ends([self.rows[row] for row in rows], tokens)

    def uniform(self, purpose: Purpose, offset: int = 0) -> Tensor:
        """A uniform number in (0, 1) for every row, float64 [B], at the position ``offset`` further on."""
        return self._noise.uniform(self.rows, positions(self.rows, offset), purpose, self.target.device)

    # What a strategy does

    def open(self, name: str, model: "PreTrainedModel", inputs: ModelInputs | None = None) -> None:
        """Add a session of another model with the same vocabulary; `forward` feeds it on demand.

        Args:
            name: what `forward` calls it.
            model: the other model.
            inputs: what it is given beside tokens; it is fed with the prompts then, so open it before them.
        """
        self._early += self._sessions.with_prompts(name, inputs)
        session = Session(model, inputs=inputs, single=len(self.rows) * self._copies == 1)
        self._sessions[name] = TrackedSession(session, name, hidden=self._hidden)

    def open_own(self, name: str, model: "PreTrainedModel") -> None:
        """Add a session of a model with tokens of its own, which `own_logits` feeds."""
        self._sessions[name] = OwnSession(model)

    def commit(
        self, tokens: Tensor | Drafts, dist: Distribution, *, reasons: Sequence[str | None] | None = None
    ) -> None:
        """Hand over each row's next tokens, once a step; they are trimmed where the row ends.

        Args:
            tokens: int64 [B], [B, n], or a list of one block a row; blocks may be ragged or empty.
            dist: what they were chosen from: token ``j`` from column ``j``.
            reasons: what `ends` said of them, so that criteria are not asked twice.

        Raises:
            PluginError: the blocks do not fit the rows or ``dist``.
            NonFiniteLogitsError, EmptySupportError: of what ``dist`` has not told yet.
        """
        read = begun(tokens, dist, self.rows, self.stops, self._sessions[TARGET]) if self.late else tokens
        blocks = as_blocks(read, dist.vocab_size)
        dist.check(longest_of(blocks, len(self.rows), dist.width, again=self._committed))
        each = [block[0] for block in blocks if len(block) == 1]
        column = as_column(tokens, each, self.target.device) if len(each) == len(blocks) else None
        if reasons is None and column is not None:
            reasons = self.stops.ends(self.rows, each, self.finished)
        elif reasons is None:
            blocks, reasons = self.stops.cuts(self.rows, blocks, self.finished)
        self._blocks, self._tokens, self._committed = blocks, column, any(blocks)
        self.recorder.record_tokens(self.rows, blocks, dist)
        if self._stateful:
            advance(self._chains, self.rows, blocks, dist)
        for row, block, reason in zip(self.rows, blocks, reasons, strict=True):
            row.tokens += block
            row.steps += 1
            row.finish_reason = reason
        self._ledger.append(blocks)

    def select(self, rows: Sequence[int] | Tensor) -> None:
        """Keep the given rows, in that order, with all that belongs to them.

        Rows are numbers, or bools for all of them. One that is named more than once forks: the copies have
        its past, and random streams of their own.
        """
        index = row_numbers(rows, len(self.rows))
        if not index:  # nothing will be asked of the caches any more
            self.rows, self._blocks = [], []
            return
        chosen: list[Row] = []
        taken: set[int] = set()
        for position in index:
            row = self.rows[position]
            chosen.append(self._lanes.fork(row) if position in taken else row)
            taken.add(position)
        self.rows = chosen
        give_free_slots(chosen)
        self._ledger.select(index)
        self._blocks = [self._blocks[position] for position in index]
        self._tokens = self._tokens[index] if self._tokens is not None else None
        for session in self._sessions.values():
            session.select(index)

    def keep(self, rows: Sequence[Row]) -> None:
        """In `finish`: these finished rows are the result, in this order; the others are dropped."""
        for rank, row in enumerate(rows):
            row.rank = rank
        self.finished = list(rows)

    def record(self, dist: Distribution, logits: Tensor) -> None:
        """Keep a step's scores and raw logits [B, V] by slot, as transformers does for beams."""
        self.recorder.record_step(self.rows, dist, logits)

    # What the loop does

    def prefill(self) -> None:
        """Feed every prompt once, then make the copies of its row."""
        places: Sequence[int] = range(len(self.rows))
        if len(self._chains) > 1 and all(self._sessions[name].any_order for name in self._early):
            places = side_by_side(self._chains, self.rows)
            self.select(places)
        for name in self._early:
            self._sessions[name].prefill(self.rows)
        prompt = self._sessions[TARGET].session.prompt
        for place, row in enumerate(self.rows):
            row.prompt_trace = Trace.of(prompt, place) if prompt is not None else None
            row.states = self._chains[row.chain].init(row.prompt_tokens)
        self._expand(self._copies, places)

    def _expand(self, copies: int, places: Sequence[int]) -> None:
        if copies > 1:
            self.select([position for position in range(len(self.rows)) for _ in range(copies)])
        for place, row in enumerate(self.rows):
            row.slot = places[place // copies] * copies + place % copies  # as the prompts came

    def end(self, reason: str) -> None:
        """End every row without asking the model."""
        self._expand(self.returns, range(len(self.rows)))
        for row in self.rows:
            row.finish_reason = reason
        self.finished, self.rows = self.rows, []

    def idle(self) -> None:
        """Take part in a step of other processes: as many passes of the model as a step here has."""
        for name in (TARGET, NEGATIVE) if self._guidance is not None else (TARGET,):
            self._sessions[name].session.idle()

    def settle(self) -> None:
        """After a step: what was not committed is taken back, and finished rows leave.

        Raises:
            PluginError: the strategy committed nothing, so that it would never end.
        """
        if not self._committed:
            message = "the strategy's step committed no token; call batch.commit once a step"
            raise PluginError(message)
        self._committed = False
        if not self.rows:
            return
        for session in self._sessions.values():
            session.committed(self._blocks, self._tokens)
        self._blocks, self._tokens = [[] for _ in self.rows], None
        live = [position for position, row in enumerate(self.rows) if row.finish_reason is None]
        if len(live) == len(self.rows):
            return
        self.finished += [row for row in self.rows if row.finish_reason is not None]
        if self.recorder.keep.cache and live:
            for position, row in enumerate(self.rows):
                if row.finish_reason is not None:
                    row.cache = self.target.take(position)
        if not live:
            self._last = self.rows
        self.select(live)

    @property
    def target(self) -> Session:
        """The session that is decoded from."""
        return self._sessions[TARGET].session

    @property
    def standing(self) -> list[Row]:
        """The rows as they stand in the target's cache: the live ones, or at the end the last ones."""
        return self._last or self.rows

    def stats(self) -> dict[str, Any]:
        """Counters over all sessions and rows so far."""
        rows = [*self.rows, *self.finished]
        return {
            "forward_passes": self._sessions[TARGET].session.forward_passes,
            "tokens_fed": sum(tracked.session.tokens_fed for tracked in self._sessions.values()),
            "drafted": sum(row.drafted for row in rows),
            "accepted": sum(row.accepted for row in rows),
        }

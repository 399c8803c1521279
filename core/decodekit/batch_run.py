"""Runs the jobs of a list: through a running batch that they join, or batch by batch."""

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import attrs

from decodekit.admission import OpenBatch, OwnStops, decode_openly
from decodekit.batch_results import Completion, PromptResult
from decodekit.call import open_batch
from decodekit.jobs import Job, Setup
from decodekit.row import NEGATIVE, Row
from decodekit.stopping import StopRules

__all__ = ["BatchRun"]

_SHARE = 4
"""Prompts are fed when one part in so many of the batch is free: one by one they would share no pass."""


@attrs.define(eq=False, kw_only=True)
class BatchRun:
    """Decodes the prompts of a list.

    Attributes:
        setup: what they share.
        batch_size: the most prompts at a time.
        keep_errors: whether a prompt that fails has a result too, and the rest goes on.
        skip_special_tokens: leave special tokens out of the texts.
    """

    setup: Setup
    batch_size: int
    keep_errors: bool = False
    skip_special_tokens: bool = True
    _begun: set[int] = attrs.field(factory=set)

    def results(self, jobs: Iterable[Job]) -> Iterator[PromptResult]:
        """Decode; yields each result once, as soon as it is there."""
        for group in _groups(jobs):
            yield from self._run(group, self.batch_size)

    def _run(self, jobs: Sequence[Job], size: int) -> Iterator[PromptResult]:
        """Decode some prompts; where that fails, each that was in the batch is tried alone, then the rest."""
        left = {job.index: job for job in jobs}
        try:
            for index, rows in self._decoded(jobs, size):
                yield self._result(left.pop(index), rows)
            return
        except Exception as error:  # also those of plugins and of the model
            begun = [job for job in left.values() if job.index in self._begun]
            if not (self.keep_errors and begun):
                raise
            failure = error
        self._begun.clear()
        for job in begun:
            if len(begun) == 1:
                yield PromptResult(
                    index=job.index, id=job.item.id, prompt_tokens=len(job.item.ids), error=failure
                )
            else:
                yield from self._run([job], 1)
        rest = [job for job in left.values() if job not in begun]
        if rest:
            yield from self._run(rest, size)

    def _decoded(self, jobs: Sequence[Job], size: int) -> Iterator[tuple[int, list[Row]]]:
        """The rows of each prompt, as they end."""
        call = jobs[0].kind.call
        returns = call.request.config.num_return_sequences or 1
        copies = call.strategy.rows_per_prompt(returns)
        for job in jobs:
            if not job.kind.call.request.max_new_tokens:
                yield job.index, [Row(prompt=job.index, finish_reason="length")] * returns
        waiting = deque(job for job in jobs if job.kind.call.request.max_new_tokens)
        if not jobs[0].kind.admits:
            yield from self._batch_by_batch(waiting, size)
            return

        def wait(free: int) -> OpenBatch | None:
            count = min(max(free // copies, 1), len(waiting))
            return self._open([waiting.popleft() for _ in range(count)]) if count else None

        least = copies * max(size // _SHARE, 1)
        for rows in decode_openly(wait, call.strategy, size * copies, least):
            yield from _by_prompt(rows)

    def _open(self, jobs: Sequence[Job]) -> OpenBatch:
        """A batch of prompts that may ask for different things, each with rules and a chain of its own."""
        self._begun.update(job.index for job in jobs)
        first, model = jobs[0].kind.call, self.setup.model
        chains = list({id(chain): chain for job in jobs for chain in job.kind.call.chains}.values())
        numbers = {id(chain): number for number, chain in enumerate(chains)}
        rows = [
            Row(
                prompt=job.index,
                slot=slot,
                prompt_tokens=job.item.ids,
                contexts=self._contexts(job),
                seed=job.seed or 0,
                chain=numbers[id(job.kind.call.chains[0])],
                greedy=job.kind.call.batch.rows[0].greedy,
            )
            for slot, job in enumerate(jobs)
        ]
        prompts = [job.item.ids for job in jobs]
        request = attrs.evolve(first.request, prompts=prompts, contexts=prompts)
        stops = OwnStops.of_each({job.index: _rules(job) for job in jobs})
        options = attrs.evolve(self.setup.options, seed=0)  # so that draws come from the seeds of the rows
        return open_batch(OpenBatch, model, request, first.strategy, options, chains, rows, first.keep, stops)

    def _contexts(self, job: Job) -> dict[str, list[int]]:
        """What the sessions are fed in the place of the prompt: a negative one."""
        contexts = job.kind.call.batch.rows[0].contexts
        if NEGATIVE in contexts and self.setup.options.negative_prompt_ids is None:
            return {**contexts, NEGATIVE: job.item.ids[-1:]}
        return contexts

    def _batch_by_batch(self, jobs: Iterable[Job], size: int) -> Iterator[tuple[int, list[Row]]]:
        """Prompts of one kind, those of alike length together; each batch is a call."""
        left = iter(jobs)
        while some := list(itertools.islice(left, size)):
            self._begun.update(job.index for job in some)
            kind, seeds = some[0].kind, [job.seed or 0 for job in some]
            call = self.setup.prepare(kind.settings, kind.chain, [job.item.ids for job in some], seeds)
            for _ in call.steps():
                pass
            for place, rows in _by_prompt(call.rows):
                yield some[place].index, rows

    def _result(self, job: Job, rows: Sequence[Row]) -> PromptResult:
        options = self.setup.options
        completions = tuple(
            Completion(
                text=options.tokenizer.decode(row.tokens, skip_special_tokens=self.skip_special_tokens),
                tokens=row.tokens,
                finish_reason=str(row.finish_reason),
                token_logprobs=row.logprobs if options.keep_logprobs else None,
            )
            for row in rows
        )
        return PromptResult(
            index=job.index,
            id=job.item.id,
            prompt_tokens=len(job.item.ids),
            seed=job.seed,
            completions=completions,
        )


def _groups(jobs: Iterable[Job]) -> list[list[Job]]:
    """The prompts that can stand in one batch, the longest first: they take most steps, and set the width."""
    groups: list[list[Job]] = []
    places: dict[int, list[Job]] = {}
    for job in jobs:
        if id(job.kind) not in places:
            group = next((group for group in groups if group[0].kind.mixes_with(job.kind)), None)
            if group is None:
                group = []
                groups.append(group)
            places[id(job.kind)] = group
        places[id(job.kind)].append(job)
    return [sorted(group, key=lambda job: -job.size) for group in groups]


def _rules(job: Job) -> StopRules:
    """The prompt's own; its time begins now."""
    stops, limit = job.kind.call.batch.stops, job.kind.call.request.config.max_time
    deadline = time.monotonic() + limit if stops.deadline is not None else None
    return attrs.evolve(stops, prompt_width=len(job.item.ids), deadline=deadline)


def _by_prompt(rows: Iterable[Row]) -> Iterator[tuple[int, list[Row]]]:
    """The rows of each prompt, in the order of its result."""
    ordered = sorted(rows, key=lambda row: (row.prompt, row.rank, row.lane))
    for prompt, own in itertools.groupby(ordered, key=lambda row: row.prompt):
        yield prompt, list(own)

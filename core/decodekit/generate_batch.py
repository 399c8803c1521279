"""`generate_batch` and `stream_batch`: a list of prompts, as many at a time as a batch holds."""

import itertools
import json
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
from torch import Tensor
from transformers import GenerationConfig

from decodekit.admission import OpenBatch, OwnStops, can_admit, decode_openly
from decodekit.batch_items import Item, read_item
from decodekit.call import Call, Options, open_batch, prepare
from decodekit.chain import Chain
from decodekit.chain_config import FIELDS, check_lengths, explicit, per_row_values, rows_of_chains
from decodekit.custom_generate import strategy_of
from decodekit.drop_in import has_own_generate
from decodekit.errors import DecodekitError, ParameterError, UnsupportedArgumentError, nearest
from decodekit.params import params_of
from decodekit.processor import Processor
from decodekit.randomness import prompt_seeds
from decodekit.registry import registry
from decodekit.row import NEGATIVE, Row
from decodekit.transformers_hooks import check_model, set_fields

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Completion", "PromptResult", "generate_batch", "stream_batch"]


@attrs.frozen(kw_only=True)
class Completion:
    """A text that was generated for a prompt.

    Attributes:
        text: the new text.
        tokens: the new token ids, with the EOS that ended them.
        finish_reason: as in `GenerateOutput`.
        token_logprobs: log-probability of each of ``tokens`` under the processed distribution, when asked for.
    """

    text: str
    tokens: list[int]
    finish_reason: str
    token_logprobs: list[float] | None = None


@attrs.frozen(kw_only=True)
class PromptResult:
    """What came out for one prompt of a list.

    ``text``, ``tokens``, ``finish_reason`` and ``token_logprobs`` are those of its first completion.

    Attributes:
        index: its place in the list.
        id: what its object calls it.
        prompt_tokens: how many tokens it has; 0 where it could not be read.
        seed: what its draws came from; None where nothing was drawn.
        completions: as many as ``num_return_sequences`` says, best first where the strategy ranks them; none
            when it failed.
        error: why it failed.
    """

    index: int
    id: Any = None
    prompt_tokens: int = 0
    seed: int | None = None
    completions: tuple[Completion, ...] = ()
    error: Exception | None = None

    @property
    def _first(self) -> Completion:
        if self.error is not None:
            raise self.error
        return self.completions[0]

    @property
    def text(self) -> str:
        """The new text; raises ``error`` where there is none."""
        return self._first.text

    @property
    def tokens(self) -> list[int]:
        """The new token ids."""
        return self._first.tokens

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        return self._first.finish_reason

    @property
    def token_logprobs(self) -> list[float] | None:
        """Log-probabilities of the new tokens, when asked for."""
        return self._first.token_logprobs


def generate_batch(
    model: "PreTrainedModel", tokenizer: Any, prompts: Sequence[Any], **arguments: Any
) -> list[PromptResult]:
    """Decode a list of prompts of any length; the results are in its order.

    The arguments are those of `stream_batch`, which gives each result as soon as it is there.
    """
    return sorted(stream_batch(model, tokenizer, prompts, **arguments), key=lambda result: result.index)


def stream_batch(
    model: "PreTrainedModel",
    tokenizer: Any,
    prompts: Sequence[Any],
    *,
    batch_size: int = 16,
    strategy: Any = None,
    processors: Any = None,
    seed: int | Sequence[int] | None = None,
    token_logprobs: bool = False,
    skip_special_tokens: bool = True,
    errors: Literal["raise", "keep"] = "raise",
    **kwargs: Any,
) -> Generator[PromptResult, None, None]:
    """Decode a list of prompts of any length, and give the result of each as soon as it is there.

    Each prompt gets what a call of `generate` with it alone gets, whatever the list, its order and the batch
    size. The longest start first; where the strategy admits it (``Strategy.ADMITS``), a prompt joins the running
    batch as soon as another has ended, and otherwise prompts of alike length are decoded batch by batch.

    Everything is checked when this function is called; the model runs as the iterator is read.

    Args:
        model: as for `generate`.
        tokenizer: the model's.
        prompts: each a text, a chat (a list of messages), token ids int64 [T], or a mapping with ``prompt`` or
            ``messages`` and, if it likes, ``id``, ``seed``, and its own values of the configuration's fields.
        batch_size: the most prompts at a time; each has as many rows as the strategy needs.
        strategy, processors: as for `generate`.
        seed: one for all prompts, or a list with one for each. Left out, prompts whose tokens are drawn get
            seeds from torch's global generator, one each in the order of the list.
        token_logprobs: keep the log-probabilities of the new tokens.
        skip_special_tokens: leave special tokens out of the texts.
        errors: what to do about a prompt that fails: "raise", or "keep" the error in its result and go on.
        **kwargs: as for `generate`, but for inputs of the model; lists with a value for each prompt may be
            those of `generate` and ``max_new_tokens``.

    Raises:
        ParameterError: a prompt or a value is not allowed; and what `generate` raises.
        UnsupportedArgumentError: an argument has no place in a list of prompts, by its name.
    """
    if has_own_generate(model):
        message = (
            f"{type(model).__name__} does more in generate than decode, so it takes no list of prompts: call "
            "decodekit.generate for each"
        )
        raise UnsupportedArgumentError(message)
    check_model(model)
    _check_arguments(tokenizer, prompts, batch_size, errors)
    custom, trusted = kwargs.pop("custom_generate", None), kwargs.pop("trust_remote_code", None)
    if custom is not None:
        strategy = strategy_of(custom, strategy=strategy, trust_remote_code=trusted)
    objects = {name: kwargs.pop(name) for name in _OBJECTS if name in kwargs}
    options = Options(
        strategy=strategy,
        seed=0,  # each row has its own
        tokenizer=tokenizer,
        logits_processor=kwargs.pop("logits_processor", None) or (),
        stopping_criteria=kwargs.pop("stopping_criteria", None) or (),
        keep_logprobs=token_logprobs,
        **objects,
    )
    config = kwargs.pop("generation_config", None)
    known = _known(strategy)
    _refuse(kwargs, known)
    work = _Work(model, config, kwargs, options, batch_size, errors == "keep", skip_special_tokens)
    work.read(list(prompts), tokenizer, known, processors, seed)
    return work.results()


_OBJECTS = ("assistant_model", "assistant_tokenizer", "negative_prompt_ids", "negative_prompt_attention_mask")
_REFUSED = {
    "prefix_allowed_tokens_fn": "is told a prompt by its row, which changes here: use a processor, such as regex",
    "streamer": "shows one call: read decodekit.stream_batch",
    "synced_gpus": "needs the same forward passes in every process: call decodekit.generate",
    "token_healing": "changes prompts one by one: call decodekit.generate",
    "past_key_values": "belongs to one call: call decodekit.generate",
    **dict.fromkeys(
        (
            "return_dict_in_generate",
            "output_scores",
            "output_logits",
            "output_attentions",
            "output_hidden_states",
        ),
        "is about the output of one call: call decodekit.generate, or ask for token_logprobs=True",
    ),
}
"""Arguments of generate that have no place in a list of prompts, and what to do."""
_LISTS = ("max_new_tokens", "max_length", "min_length", "max_time")
"""Fields that may have a value for each prompt beside those of the chain."""


def _check_arguments(tokenizer: Any, prompts: Any, batch_size: Any, errors: Any) -> None:
    if not callable(getattr(tokenizer, "decode", None)):
        message = (
            f"tokenizer is a {type(tokenizer).__name__}: the model's tokenizer is the second argument: "
            "generate_batch(model, tokenizer, prompts)"
        )
        raise ParameterError(message)
    if isinstance(prompts, (str, Mapping)) or not isinstance(prompts, (Sequence, Tensor)):
        message = f"prompts is a {type(prompts).__name__}: give a list of prompts, also for a single one"
        raise ParameterError(message)
    if type(batch_size) is not int or batch_size < 1:
        message = f"batch_size={batch_size!r} is not allowed: batch_size must be int in [1, inf)"
        raise ParameterError(message)
    if errors not in ("raise", "keep"):
        message = f"errors={errors!r} is not allowed: errors must be 'raise' or 'keep'"
        raise ParameterError(message)


def _known(strategy: Any) -> set[str]:
    """The names of values that a prompt may have of its own: those of the configuration and the strategy."""
    what = strategy[0] if isinstance(strategy, (tuple, list)) and strategy else strategy
    cls = registry().entry("strategies", what).cls if isinstance(what, str) else what
    own = params_of(cls if isinstance(cls, type) else type(cls)) if cls is not None else {}
    return {*GenerationConfig().to_dict(), *own} - _REFUSED.keys()


def _refuse(kwargs: Mapping[str, Any], known: Iterable[str]) -> None:
    for name, value in kwargs.items():
        if name in _REFUSED and value not in (None, False):
            message = f"{name}={value!r} {_REFUSED[name]}"
            raise UnsupportedArgumentError(message)
        if name not in known and name not in _REFUSED:
            message = f"{name} is an argument of neither generate_batch nor the strategy."
            raise UnsupportedArgumentError(message + nearest(name, sorted(known)))


@attrs.frozen(eq=False)
class _Kind:
    """Prompts that ask for the same.

    Attributes:
        settings: their own values, as `prepare` takes them for one prompt.
        processors: their chain, where it is spelt out.
        call: a call of one such prompt, which everything is read off.
    """

    settings: Mapping[str, Any]
    processors: Chain | None
    call: Call

    def mixes_with(self, other: "_Kind") -> bool:
        """Whether their prompts can stand in one batch."""
        mine, theirs = self.call, other.call
        return mine.strategy == theirs.strategy and self._shared() == other._shared()

    def _shared(self) -> dict[str, Any]:
        own = {*_LISTS, "min_new_tokens", "stop_strings", *(field.name for field in FIELDS)}
        values: dict[str, Any] = self.call.request.config.to_dict()
        return {name: value for name, value in values.items() if name not in own}


@attrs.frozen(eq=False)
class _Job:
    """A prompt that waits, or is being decoded."""

    index: int
    item: Item
    kind: _Kind
    seed: int | None

    @property
    def size(self) -> int:
        """The most tokens that it will have."""
        return len(self.item.ids) + self.kind.call.request.max_new_tokens


@attrs.define(eq=False)
class _Work:
    """A list of prompts: `read` once, then `results` once."""

    model: "PreTrainedModel"
    config: GenerationConfig | None
    common: dict[str, Any]
    options: Options
    batch_size: int
    keep_errors: bool
    skip_special_tokens: bool
    _jobs: list[_Job] = attrs.field(factory=list)
    _failed: list[PromptResult] = attrs.field(factory=list)
    _kinds: dict[str, _Kind] = attrs.field(factory=dict)
    _chains: list[tuple[Any, Chain]] = attrs.field(factory=list)
    _begun: set[int] = attrs.field(factory=set)

    # Reading

    def read(self, prompts: list[Any], tokenizer: Any, known: set[str], processors: Any, seed: Any) -> None:
        """Resolve everything; what can't work is an error here."""
        lists = per_row_values(self.common)
        for name in _LISTS:
            if isinstance(self.common.get(name), (list, tuple)):
                lists[name] = list(self.common.pop(name))
        check_lengths(lists, len(prompts))
        seeds = prompt_seeds(seed, len(prompts)) if seed is not None else [None] * len(prompts)
        chains: list[Chain] = []
        if processors is not None:
            chains, numbers = rows_of_chains(explicit(processors, len(prompts)), len(prompts))
        for index, prompt in enumerate(prompts):
            try:
                item = read_item(prompt, tokenizer, known)
                self._check_length(item)
            except DecodekitError as error:
                self._fail(index, None, error)
                continue
            chain = chains[numbers[index]] if chains else None
            values = {name: given[index] for name, given in lists.items()}
            if not self._kinds:  # what is wrong with all is not the fault of one
                with warnings.catch_warnings(action="ignore"):
                    self._kind(values, chain, item)
            try:
                kind = self._kind({**values, **item.settings}, chain, item)
            except Exception as error:  # transformers has errors of its own for wrong values
                self._fail(index, item, error)
                continue
            own = item.seed if item.seed is not None else seeds[index]
            if not kind.call.strategy.samples:
                own = None
            elif own is None:
                own = int(torch.randint(2**62, ()))
            self._jobs.append(_Job(index, item, kind, own))

    def _check_length(self, item: Item) -> None:
        config = self.model.config.get_text_config(decoder=True)
        most = getattr(config, "max_position_embeddings", None)
        if most and not self.model.config.is_encoder_decoder and len(item.ids) >= most:
            message = (
                f"the prompt has {len(item.ids)} tokens, and {type(self.model).__name__} has {most} positions, of "
                "which a new token needs one: shorten it"
            )
            raise ParameterError(message)

    def _kind(self, values: dict[str, Any], chain: Chain | None, item: Item) -> _Kind:
        """The kind of prompts with these values of their own."""
        lengths = ("max_length", "min_length")
        given = [self.model.generation_config, self.config or GenerationConfig()]
        told = {**set_fields(given[0]), **set_fields(given[1]), **self.common, **values}
        key = json.dumps(
            [values, id(chain), len(item.ids) if any(told.get(name) for name in lengths) else 0],
            sort_keys=True,
            default=id,
        )
        if key not in self._kinds:
            of_chain = {field.name for field in FIELDS}
            settings = {name: [value] if name in of_chain else value for name, value in values.items()}
            call = self._prepare(settings, chain, [item.ids], 0)
            call.chains = [self._known_chain(call, bound) for bound in call.chains]
            self._kinds[key] = _Kind(settings, chain, call)
        return self._kinds[key]

    def _known_chain(self, call: Call, chain: Chain) -> Chain:
        """The same chain as other prompts have, so that their rows go through it together."""
        request = call.request
        binds = any(type(item).bind is not Processor.bind for item in chain.processors)
        bound_to = (request.max_new_tokens, request.eos_token_ids, request.pad_token_id) if binds else None
        for place, known in self._chains:
            if place == bound_to and known == chain:
                return known
        self._chains.append((bound_to, chain))
        return chain

    def _prepare(self, settings: Mapping[str, Any], chain: Chain | None, prompts: list[list[int]], seed: Any) -> Call:
        """A call of prompts of one kind."""
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in prompts], device=self.model.device)
        shown = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=ids.device)
        of_chain = {field.name for field in FIELDS}
        values = {
            name: list(value) * len(prompts) if name in of_chain else value for name, value in settings.items()
        }
        given = {**self.common, **values, "input_ids": ids, "attention_mask": shown}
        options = attrs.evolve(self.options, processors=chain, seed=seed)
        return prepare(self.model, None, self.config, given, options)

    def _fail(self, index: int, item: Item | None, error: Exception) -> None:
        if not self.keep_errors:
            if isinstance(error, DecodekitError):
                message = f"prompts[{index}]: {error}"
                raise type(error)(message) from error
            error.add_note(f"in prompts[{index}]")
            raise error
        self._failed.append(self._failure(index, item, error))

    def _failure(self, index: int, item: Item | None, error: Exception) -> PromptResult:
        known = {"id": item.id, "prompt_tokens": len(item.ids)} if item is not None else {}
        return PromptResult(index=index, error=error, **known)

    # Decoding

    def results(self) -> Generator[PromptResult, None, None]:
        """Decode; yields each result once."""
        yield from self._failed
        for jobs in self._groups():
            yield from self._run(jobs, self.batch_size)

    def _groups(self) -> list[list[_Job]]:
        """The prompts that can stand in one batch, the longest first."""
        groups: list[list[_Job]] = []
        places: dict[int, list[_Job]] = {}
        for job in self._jobs:
            if id(job.kind) not in places:
                admits = can_admit(self.model, job.kind.call)
                found = (group for group in groups if admits and group[0].kind.mixes_with(job.kind))
                group = next(found, None)
                if group is None:
                    group = []
                    groups.append(group)
                places[id(job.kind)] = group
            places[id(job.kind)].append(job)
        return [sorted(group, key=lambda job: -job.size) for group in groups]

    def _run(self, jobs: Sequence[_Job], size: int) -> Iterator[PromptResult]:
        """Decode some prompts; where that fails, each that was being decoded is tried alone, then the rest."""
        left = {job.index: job for job in jobs}
        try:
            for index, rows in self._decoded(jobs, size):
                yield self._result(left.pop(index), rows)
            return
        except Exception as error:  # a plugin's own errors too
            begun = [job for job in left.values() if job.index in self._begun]
            if not self.keep_errors or not begun:
                raise
            failure = error
        if len(begun) == 1:
            yield self._failure(begun[0].index, begun[0].item, failure)
        else:
            for job in begun:
                self._begun.discard(job.index)
                yield from self._run([job], 1)
        rest = [job for job in left.values() if job not in begun]
        if rest:
            yield from self._run(rest, size)

    def _decoded(self, jobs: Sequence[_Job], size: int) -> Iterator[tuple[int, list[Row]]]:
        """The rows of each prompt, as they end."""
        call = jobs[0].kind.call
        waiting = deque(job for job in jobs if job.kind.call.request.max_new_tokens)
        nothing = [job for job in jobs if not job.kind.call.request.max_new_tokens]
        copies = call.strategy.rows_per_prompt(call.request.config.num_return_sequences or 1)
        returns = call.request.config.num_return_sequences or 1
        for job in nothing:
            yield job.index, [Row(prompt=job.index, finish_reason="length")] * returns
        if not waiting:
            return
        if not can_admit(self.model, call):
            yield from self._batch_by_batch(waiting, size)
            return

        def wait(free: int) -> OpenBatch | None:
            count = min(max(free // copies, 1), len(waiting))
            return self._open([waiting.popleft() for _ in range(count)]) if count else None

        least = copies * max(size // _PATIENCE, 1)
        for rows in decode_openly(wait, call.strategy, size * copies, least):
            rows.sort(key=lambda row: (row.prompt, row.rank, row.lane))
            for index, own in itertools.groupby(rows, key=lambda row: row.prompt):
                yield index, list(own)

    def _open(self, jobs: Sequence[_Job]) -> OpenBatch:
        """A batch of prompts that may have different settings, each with rules and a chain of its own."""
        self._begun.update(job.index for job in jobs)
        first = jobs[0].kind.call
        chains = list({id(job.kind.call.chains[0]): job.kind.call.chains[0] for job in jobs}.values())
        numbers = {id(chain): number for number, chain in enumerate(chains)}
        prompts = [job.item.ids for job in jobs]
        rows, rules = [], {}
        for slot, job in enumerate(jobs):
            (pattern,), stops = job.kind.call.batch.rows, job.kind.call.batch.stops
            contexts = pattern.contexts
            if NEGATIVE in contexts and self.options.negative_prompt_ids is None:
                contexts = {**contexts, NEGATIVE: job.item.ids[-1:]}
            rows.append(
                Row(
                    prompt=job.index,
                    slot=slot,
                    prompt_tokens=job.item.ids,
                    contexts=contexts,
                    seed=job.seed or 0,
                    chain=numbers[id(job.kind.call.chains[0])],
                    greedy=pattern.greedy,
                )
            )
            limit = job.kind.call.request.config.max_time
            deadline = time.monotonic() + limit if stops.deadline is not None else None
            rules[job.index] = attrs.evolve(stops, prompt_width=len(job.item.ids), deadline=deadline)
        request = attrs.evolve(first.request, prompts=prompts, contexts=prompts)
        stops = OwnStops.of_each(rules)
        return open_batch(
            OpenBatch, self.model, request, first.strategy, self.options, chains, rows, first.keep, stops
        )

    def _batch_by_batch(self, jobs: Iterable[_Job], size: int) -> Iterator[tuple[int, list[Row]]]:
        """Prompts of one kind, of alike length together; each batch is a call."""
        left = iter(jobs)
        while some := list(itertools.islice(left, size)):
            self._begun.update(job.index for job in some)
            kind = some[0].kind
            seeds = [job.seed or 0 for job in some]
            call = self._prepare(kind.settings, kind.processors, [job.item.ids for job in some], seeds)
            for _ in call.steps():
                pass
            for place, rows in itertools.groupby(call.rows, key=lambda row: row.prompt):
                yield some[place].index, list(rows)

    def _result(self, job: _Job, rows: Sequence[Row]) -> PromptResult:
        tokenizer = self.options.tokenizer
        completions = tuple(
            Completion(
                text=tokenizer.decode(row.tokens, skip_special_tokens=self.skip_special_tokens),
                tokens=row.tokens,
                finish_reason=str(row.finish_reason),
                token_logprobs=row.logprobs if self.options.keep_logprobs else None,
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


_PATIENCE = 4
"""Prompts are fed when this part of the batch is free: one by one they would not share a pass of the weights."""

"""A call of generate: everything is resolved once, before the first forward pass (laws 8 and 9)."""

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import torch
from torch import Tensor
from transformers import GenerationConfig, MaxLengthCriteria

from decodekit import graphs
from decodekit.arguments import check_objects
from decodekit.batch import Batch
from decodekit.chain import Chain
from decodekit.chain_config import check_lengths, configured, explicit, per_row_values, rows_of_chains
from decodekit.choice import (
    asked_strategy,
    check_needs,
    default_strategy,
    refuse_not_yet,
    refuse_unsampled,
    refuse_unused,
    refuse_unused_fields,
)
from decodekit.errors import CapabilityError, ParameterError
from decodekit.healing import healed
from decodekit.inference import inferring
from decodekit.keep import Keep
from decodekit.loop import decode
from decodekit.outputs import AnyOutput, RowStats, Stats, assemble
from decodekit.processor import CallContext
from decodekit.randomness import GlobalNoise, SeededNoise, prompt_seeds
from decodekit.request import Request, read_request
from decodekit.row import NEGATIVE, TARGET, Row
from decodekit.session import Session
from decodekit.sessions import draft_inputs, negative_prompts, open_guidance, open_target
from decodekit.stopping import StopRules
from decodekit.strategy import Capability, Strategy
from decodekit.transformers_hooks import OneToken, check_model, set_fields, synced_ranks
from decodekit.wrapped import PrefixConstraint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Call", "Options", "open_batch", "prepare"]

AnyBatch = TypeVar("AnyBatch", bound=Batch)


def _listed(items: Any) -> Any:
    """A tuple of what can be gone through, perhaps only once; anything else for the checks to refuse."""
    return tuple(items) if isinstance(items, Iterable) else items


@attrs.frozen(eq=False, kw_only=True)
class Options:
    """What a call of generate gets beside the configuration and the model's inputs."""

    strategy: Any = None
    processors: Any = None
    seed: int | Sequence[int] | None = None
    tokenizer: Any = None
    assistant_model: Any = None
    assistant_tokenizer: Any = None
    logits_processor: Sequence[Any] = attrs.field(default=(), converter=_listed)
    stopping_criteria: Sequence[Any] = attrs.field(default=(), converter=_listed)
    prefix_allowed_tokens_fn: Any = None
    negative_prompt_ids: Any = None
    negative_prompt_attention_mask: Any = None
    synced_gpus: bool | None = None
    compile: bool | None = None
    keep_logprobs: bool = False


@attrs.frozen
class Final:
    """Tokens that can't change, their log-probabilities (when kept), and why they are all; else None."""

    tokens: list[int]
    logprobs: list[float]
    reason: str | None


@attrs.define(eq=False, kw_only=True)
class Call:
    """One call, ready to run: `steps` runs it, `result` says what came out so far."""

    request: Request
    strategy: Strategy
    chains: list[Chain]
    batch: Batch
    keep: Keep
    synced: bool = False
    inferring: Sequence["PreTrainedModel"] = ()
    _started: float = 0.0
    _fed: float = 0.0
    _stopped: float = 0.0
    _ended: bool = False

    def steps(self) -> Iterator[None]:
        """Run; yields after the prompts were fed, and after every step."""
        if self.request.max_new_tokens == 0:
            self.batch.end("length")
            self._ended = True
            return
        self._started = time.perf_counter()
        for _ in decode(self.batch, self.strategy, synced=self.synced, inferring=self.inferring):
            self._stopped = time.perf_counter()
            self._fed = self._fed or self._stopped
            yield
        self._ended = True

    @property
    def rows(self) -> list[Row]:
        """Every row, in the order of the result."""
        return sorted(
            [*self.batch.rows, *self.batch.finished], key=lambda row: (row.prompt, row.rank, row.lane)
        )

    def result(self) -> AnyOutput:
        """What was generated so far."""
        request, rows = self.request, self.rows
        stats = Stats(
            strategy=self.strategy.NAME,
            chains=tuple(str(chain) for chain in self.chains),
            prompt_tokens=sum(map(len, request.prompts)),
            new_tokens=sum(len(row.tokens) for row in rows),
            prefill_seconds=self._fed - self._started,
            decode_seconds=self._stopped - self._fed,
            **self.batch.stats(),
            rows=tuple(RowStats.of(row) for row in rows),
            details=dict(self.batch.details),
        )
        return assemble(
            self.batch,
            rows,
            request.input_ids,
            request.layout,
            request.pad_token_id,
            self.keep,
            stats,
            synced=self.synced,
        )

    def final(self) -> list[Final]:
        """What can't change any more of each row of the result.

        While a search goes on, these are, for the best row of a prompt, the tokens on which all agree.
        Whether there will be further rows is only known at its end.
        """
        if self._ended or not self.strategy.SEARCHES:
            return [Final(row.tokens, row.logprobs, row.finish_reason) for row in self.rows]
        agreed: dict[int, Final] = {}
        for row in self.rows:
            known = agreed.get(row.prompt)
            pairs = zip(known.tokens, row.tokens, strict=False) if known else ()
            count = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            agreed[row.prompt] = Final(row.tokens[:count] if known else row.tokens, row.logprobs, None)
        others = [Final([], [], None)] * (self.batch.returns - 1)
        return [row for prompt in sorted(agreed) for row in (agreed[prompt], *others)]


def prepare(
    model: "PreTrainedModel",
    inputs: Tensor | None,
    generation_config: GenerationConfig | None,
    kwargs: Mapping[str, Any],
    options: Options,
) -> Call:
    """Resolve a call; whatever can't work is an error here.

    ``kwargs`` holds fields of the configuration, inputs of the model and parameters of the strategy.
    """
    check_model(model)
    check_objects(options)
    values = dict(kwargs)
    per_row = per_row_values(values)
    if options.processors is not None:
        own = {
            "logits_processor": options.logits_processor or None,
            "prefix_allowed_tokens_fn": options.prefix_allowed_tokens_fn,
        }
        refuse_unused({**values, **own}, per_row)
    objects = {name: getattr(options, name) for name in ("assistant_model", "assistant_tokenizer")}
    assistant = {name: value for name, value in objects.items() if value is not None}
    fields = set_fields(model.generation_config) | set_fields(generation_config)
    asked = asked_strategy(options.strategy, values, assistant, fields)
    request = read_request(model, inputs, generation_config, values, options.assistant_model)
    request = _with_callers_length(request, options)
    refuse_not_yet(request.config)
    check_lengths(per_row, len(request.prompts))
    cold = _cold(request, per_row, options)
    strategy = asked or default_strategy(request.config, request.mode, assistant, cold=all(cold))
    if not all(cold):
        refuse_unsampled(strategy, per_row)
    if options.processors is not None:
        refuse_unused_fields(generation_config, model.generation_config, strategy)
    if options.seed is None and strategy.POSITIONAL and strategy.samples:
        seeds = torch.randint(2**62, (len(request.prompts),)).tolist()
        options = attrs.evolve(options, seed=seeds)
    negative = negative_prompts(
        model, options.negative_prompt_ids, options.negative_prompt_attention_mask, request
    )
    chains, rows = _chains_and_rows(request, per_row, strategy, options, cold, negative)
    context = _context(model, request, strategy, options)
    chains = [chain.bind(context) for chain in chains]
    strategy = strategy.bind(model, context)
    keep = _keep(request.config, options, strategy, given=request.cache is not None)
    batch = open_batch(Batch, model, request, strategy, options, chains, rows, keep)
    if request.config.token_healing:
        kwargs = healed(model, request, kwargs, options.tokenizer)
        return prepare(model, None, generation_config, kwargs, options)
    synced = _synced(model, request, strategy, options)
    call = Call(request=request, strategy=strategy, chains=chains, batch=batch, keep=keep, synced=synced)
    functions = [*options.stopping_criteria, *options.logits_processor, options.prefix_allowed_tokens_fn]
    shown = [item for item in (*functions, request.cache, batch.target.compiled) if item is not None]
    batch.late = (
        graphs.are_for(model)
        and isinstance(batch.target.compiled, OneToken)
        and (strategy.ADMITS and not (synced or keep.cache))
    )
    call.inferring = inferring(model, strategy, keep) if not (shown or synced) else ()
    return call


def _with_callers_length(request: Request, options: Options) -> Request:
    """A caller's criterion of length takes the place of the configuration's, as in transformers."""
    lengths = [item.max_length for item in options.stopping_criteria if type(item) is MaxLengthCriteria]
    if not lengths or request.max_new_tokens == 0:
        return request
    return attrs.evolve(request, max_new_tokens=max(min(lengths) - request.input_ids.shape[1], 1))


def _synced(model: "PreTrainedModel", request: Request, strategy: Strategy, options: Options) -> bool:
    """Whether every process must run as many forward passes as the others."""
    if not synced_ranks(model, options.synced_gpus):
        return False
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        message = (
            "synced_gpus=True keeps several processes in step, and torch.distributed is not initialized: "
            "leave it out, or start the script with torchrun"
        )
        raise ParameterError(message)
    uneven = {
        f"strategy={strategy.NAME!r}": strategy.models or Capability.POSITIONS in strategy.needs,
        "max_new_tokens=0": request.max_new_tokens == 0,
        "prefill_chunk_size": request.config.prefill_chunk_size is not None,
    }
    for name, found in uneven.items():
        if found:
            message = (
                f"synced_gpus=True needs the same forward passes in every process, and {name} makes their "
                "number depend on the prompts: leave one of them out"
            )
            raise CapabilityError(message)
    return True


def _cold(request: Request, per_row: Mapping[str, Sequence[Any]], options: Options) -> list[bool]:
    """Which prompts are at temperature 0; an explicit chain has its own temperature."""
    if options.processors is not None:
        return [False] * len(request.prompts)
    return [
        value == 0
        for value in per_row.get("temperature", [request.config.temperature] * len(request.prompts))
    ]


def _chains_and_rows(
    request: Request,
    per_row: Mapping[str, Sequence[Any]],
    strategy: Strategy,
    options: Options,
    cold: Sequence[bool],
    negative: list[list[int]] | None,
) -> tuple[list[Chain], list[Row]]:
    """The distinct chains, and a row for each prompt."""
    count = len(request.prompts)
    least = 1 + max(1, len(request.eos_token_ids)) if strategy.SEARCHES else 1
    if options.processors is not None:
        slots = explicit(options.processors, count)
    else:
        slots = configured(
            request.config,
            per_row,
            sampling=strategy.samples,
            least=least,
            wrapped=options.logits_processor,
            prefix=_prefix(request.config, options, strategy),
        )
    chains, numbers = rows_of_chains(slots, count)
    seeds = prompt_seeds(options.seed, count) if options.seed is not None else [0] * count
    rows = [
        Row(
            prompt=place,
            slot=place,
            prompt_tokens=request.prompts[place],
            contexts=_contexts(request, negative, place),
            seed=seeds[place],
            chain=numbers[place],
            greedy=cold[place],
        )
        for place in range(count)
    ]
    return chains, rows


def _contexts(request: Request, negative: list[list[int]] | None, place: int) -> dict[str, list[int]]:
    """What the sessions are fed for a prompt, where that is something else than its tokens."""
    contexts = {TARGET: request.contexts[place]} if request.contexts is not request.prompts else {}
    return contexts | ({NEGATIVE: negative[place]} if negative is not None else {})


def _context(model: "PreTrainedModel", request: Request, strategy: Strategy, options: Options) -> CallContext:
    copies = strategy.rows_per_prompt(request.config.num_return_sequences or 1)
    return CallContext(
        vocab_size=model.config.get_text_config().vocab_size,
        eos_token_ids=request.eos_token_ids,
        tokenizer=options.tokenizer,
        batch_size=len(request.prompts) * copies,
        max_new_tokens=request.max_new_tokens,
        prompt_width=request.input_ids.shape[1],
        pad_token_id=request.pad_token_id,
        sources=request.source_ids,
    )


def _prefix(config: GenerationConfig, options: Options, strategy: Strategy) -> PrefixConstraint | None:
    if options.prefix_allowed_tokens_fn is None:
        return None
    beams = strategy.rows_per_prompt(config.num_return_sequences or 1) if strategy.SEARCHES else 1
    return PrefixConstraint(options.prefix_allowed_tokens_fn, beams)


def _keep(config: GenerationConfig, options: Options, strategy: Strategy, *, given: bool) -> Keep:
    asked = bool(config.return_dict_in_generate)
    # A quantized cache holds rows together: there is no handing back rows of different lengths.
    cached = config.use_cache is not False and config.cache_implementation != "quantized"
    return Keep(
        logprobs=asked or options.keep_logprobs,
        scores=asked and bool(config.output_scores),
        logits=asked and bool(config.output_logits),
        attentions=asked and bool(config.output_attentions),
        hidden_states=asked and bool(config.output_hidden_states),
        cache=(asked or given) and cached and not strategy.SEARCHES,
        by_slot=strategy.SEARCHES,
    )


def open_batch(
    kind: type[AnyBatch],
    model: "PreTrainedModel",
    request: Request,
    strategy: Strategy,
    options: Options,
    chains: Sequence[Chain],
    rows: Sequence[Row],
    keep: Keep,
    stops: StopRules | None = None,
) -> AnyBatch:
    """A batch of the prompts of ``request``, with all its sessions; nothing is fed yet.

    Args:
        kind: `Batch`, or a subclass.
        model, request, strategy, options, chains, rows, keep: those of a `Call`.
        stops: when rows end; left out, by the request's own rules.
    """
    returns = request.config.num_return_sequences or 1
    copies = strategy.rows_per_prompt(returns)
    session = open_target(model, request, strategy, keep, len(rows) * copies, compiled=options.compile)
    further = {
        name: draft_inputs(strategy, name, other, model, request, len(rows) * copies)
        for name, other in strategy.models.items()
    }
    batch = kind(
        rows,
        session,
        chains=chains,
        noise=SeededNoise() if options.seed is not None else GlobalNoise(len(rows) * copies),
        stops=stops or StopRules.of(request, options.stopping_criteria, options.tokenizer),
        keep=keep,
        pad_token_id=request.pad_token_id,
        copies=copies,
        returns=returns,
        hidden=Capability.HIDDEN_STATES in strategy.needs,
        guidance=open_guidance(model, request, strategy),
    )
    for name, inputs in further.items():
        batch.open(name, strategy.models[name], inputs)
    for name, other in strategy.foreign_models.items():
        check_needs(strategy, Session(other))
        batch.open_own(name, other)
    return batch

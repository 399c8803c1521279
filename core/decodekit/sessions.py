"""Opens the model sessions of a call: the target's, a negative prompt's, and those of further models."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from transformers import QuantizedCache

from decodekit import caches, graphs
from decodekit.caches import KINDS
from decodekit.checks import check_ids, check_mask, to_tensor
from decodekit.choice import check_needs, check_vocabulary
from decodekit.compiled import CompiledStep, asked_for, compiled_step, warn_without
from decodekit.errors import CapabilityError, ParameterError, UnsupportedArgumentError, nearest
from decodekit.growing import grow, why_not_growing
from decodekit.guidance import Guidance
from decodekit.heads import Heads
from decodekit.keep import Keep
from decodekit.kernels import NotCompilableError
from decodekit.model_inputs import ModelInputs
from decodekit.quantized_cache import new_quantized_cache
from decodekit.request import Request
from decodekit.session import Session
from decodekit.strategy import Capability, Strategy
from decodekit.transformers_hooks import OneToken, compiled_call, takes_cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

__all__ = ["draft_inputs", "negative_prompts", "open_guidance", "open_target"]


def open_target(
    model: "PreTrainedModel",
    request: Request,
    strategy: Strategy,
    keep: Keep,
    rows: int,
    *,
    compiled: bool | None = None,
) -> Session:
    """The session that is decoded from.

    Args:
        model: the call's.
        request: the call's.
        strategy: says how far it drafts, and what it needs.
        keep: what is kept.
        rows: rows of the batch.
        compiled: whether to run it as a compiled step; left out, what `decodekit.load` was asked for.

    Raises:
        ParameterError: arguments about the cache that contradict each other.
        CapabilityError: the strategy needs what this session can't do.
    """
    config = request.config
    cache = _cache(model, request, strategy)
    capacity = max(map(len, request.contexts)) + request.max_new_tokens + strategy.lookahead
    step = None
    if asked_for(model) if compiled is None else compiled:
        step = _step(model, request, strategy, keep, rows, cache, capacity)
    if step is not None:
        if graphs.are_for(model):
            cache, capacity = "static", _roomy(capacity)
        elif isinstance(cache, str):
            cache = "growing"
    _check_callers_cache(request, rows, capacity)
    _check_prompt_inputs(request, rows, cached=cache != "none")
    if keep.attentions:
        _check_eager(model)
    session = Session(
        model,
        cache=cache,
        capacity=max(capacity, config.max_cache_len or 0),
        inputs=request.model_inputs,
        past=request.past,
        chunk=config.prefill_chunk_size,
        single=rows == 1,
        traced=keep.traces,
    )
    if strategy.heads is not None:
        _check_whole(request)
        session.heads = Heads(strategy.heads)
    session.compiled = step or compiled_call(model, config, session.cache)
    check_needs(strategy, session)
    _check_pieces(session, request)
    if step is not None and session.cache is request.cache is not None:
        grow(request.cache)  # not before: a call that is refused leaves it as it was
    return session


def _check_pieces(session: Session, request: Request) -> None:
    """Raise where pieces of a prompt would be fed onto a state, which only single tokens do exactly."""
    piece, width = request.config.prefill_chunk_size, max(map(len, request.contexts))
    if piece is not None and piece < width and caches.is_recurrent(session.cache):
        message = (
            f"prefill_chunk_size={piece} would feed a prompt of {width} tokens in pieces, and "
            f"{type(session.model).__name__} keeps a state, to which pieces and their padding can't be added "
            "exactly: leave it out"
        )
        raise CapabilityError(message)


def _step(
    model: "PreTrainedModel",
    request: Request,
    strategy: Strategy,
    keep: Keep,
    rows: int,
    cache: "str | Cache",
    capacity: int,
) -> CompiledStep | OneToken | None:
    """The compiled step, ready for this call; None where there is none, and a warning says why."""
    graphed = graphs.are_for(model)
    problem = _cache_problem(cache, graphed=graphed)
    reasons = {
        str(problem): problem is not None,
        "kernels give no hidden states or attentions": keep.attentions
        or keep.hidden_states
        or strategy.heads is not None
        or Capability.HIDDEN_STATES in strategy.needs,
        "the model is given more than tokens": bool(request.model_inputs.given)
        or bool(request.model_inputs.columns),
    }
    reason = next((reason for reason, found in reasons.items() if found), None)
    if reason is None:
        try:
            if graphed:
                return graphs.graphed_call(model, request.config, rows, _roomy(capacity))
            step = compiled_step(model)
            step.prepare(model, min(rows, step.most))
        except NotCompilableError as error:
            reason = str(error)
        else:
            return step
    warn_without(model, reason)
    return None


def _cache_problem(cache: "str | Cache", *, graphed: bool) -> str | None:
    """Why there is no compiled step over a cache; None, if there may be one."""
    if cache == "none":
        return "it needs a cache, and this call has none (use_cache=False)"
    if isinstance(cache, str):
        own = f"it needs a dynamic cache of its own, and this call's is {cache!r}"
        return None if cache == "dynamic" else own
    if graphed:
        return "it needs a cache of its own, and past_key_values is given"
    problem = why_not_growing(cache)
    wanted = f"it needs a dynamic cache that keeps all tokens, and this call's {problem}"
    return None if problem is None else wanted


def _roomy(capacity: int) -> int:
    return -(-capacity // graphs.ROOM) * graphs.ROOM


def _cache(model: "PreTrainedModel", request: Request, strategy: Strategy) -> "str | Cache":
    config = request.config
    if request.cache is not None:
        if config.cache_implementation is not None:
            message = (
                f"past_key_values and cache_implementation={config.cache_implementation!r} contradict each "
                "other: leave one of them out"
            )
            raise ParameterError(message)
        if config.use_cache is False:
            message = "past_key_values and use_cache=False contradict each other: leave one of them out"
            raise ParameterError(message)
        return copy.deepcopy(request.cache) if strategy.SEARCHES else request.cache
    if config.use_cache is False:
        if config.prefill_chunk_size is not None:
            message = "prefill_chunk_size needs a cache: leave it out, or use_cache=False"
            raise ParameterError(message)
        if config.cache_config is not None or config.cache_implementation == "quantized":
            message = "a quantized cache and use_cache=False contradict each other: leave one of them out"
            raise ParameterError(message)
        return "none"
    if not takes_cache(model):
        message = (
            f"{type(model).__name__} has a cache of its own kind, which decodekit can't follow: "
            "pass use_cache=False"
        )
        raise UnsupportedArgumentError(message)
    asked = config.cache_implementation or "dynamic"
    kind = _OLD_NAMES.get(asked, asked)
    if kind == "quantized":
        return new_quantized_cache(model, config.cache_config)
    if config.cache_config is not None:
        message = (
            f"cache_config would have no effect with cache_implementation={kind!r}: leave it out, or pass "
            "cache_implementation='quantized'"
        )
        raise ParameterError(message)
    if kind not in KINDS:
        known = (*KINDS, "quantized")
        message = (
            f"cache_implementation={kind!r} is not supported by this version of decodekit; it takes "
            f"{', '.join(map(repr, known))}{nearest(kind, known)}"
        )
        raise UnsupportedArgumentError(message)
    if kind.startswith("offloaded") and model.device.type == "cpu":
        message = (
            f"cache_implementation={kind!r} moves the cache from an accelerator to the host's memory, and "
            "this model is on cpu already: leave it out"
        )
        raise CapabilityError(message)
    return kind


_OLD_NAMES = {
    "hybrid_chunked": "static",
    "offloaded_hybrid": "offloaded_static",
    "offloaded_hybrid_chunked": "offloaded_static",
    "sliding_window": "static",
}
"""What transformers called caches whose layers now follow from the model."""


def _check_callers_cache(request: Request, rows: int, needed: int) -> None:
    """Raise where a cache that was given can't hold the call, or could not be given back."""
    held = caches.capacity(request.cache)
    if held is not None and held < needed:
        message = (
            f"past_key_values has room for {held} tokens, and the call may need {needed}: give a static "
            "cache of that max_cache_len, or lower max_new_tokens"
        )
        raise ParameterError(message)
    if isinstance(request.cache, QuantizedCache) and (rows > 1 or not bool(request.layout.all())):
        message = (
            "past_key_values is a quantized cache, whose rows can't be put in their places again: give one "
            "prompt without padding, or another cache"
        )
        raise CapabilityError(message)


def _check_prompt_inputs(request: Request, rows: int, *, cached: bool) -> None:
    once = request.model_inputs.once
    chunk = request.config.prefill_chunk_size
    if once and chunk is not None and chunk < request.layout.shape[1]:
        message = (
            f"prefill_chunk_size={chunk} would cut a prompt that {', '.join(once)} belong to as a whole: "
            "leave it out"
        )
        raise ParameterError(message)
    fixed = request.model_inputs.fixed_rows(len(request.prompts)) if rows > 1 and not cached else []
    if fixed:
        message = (
            f"use_cache=False feeds {', '.join(fixed)} with every token, and their rows are no prompts: "
            "leave use_cache out, or pass one prompt at a time"
        )
        raise CapabilityError(message)


def _check_whole(request: Request) -> None:
    """Raise where hidden states are missing that multi-token heads would read."""
    if request.past is not None and request.past.shape[1]:
        message = (
            "multi-token heads read the hidden states of the whole text, and past_key_values holds none: "
            "leave it out and pass the whole text, or choose another drafter"
        )
        raise CapabilityError(message)


def _check_eager(model: "PreTrainedModel") -> None:
    kind = model.config._attn_implementation
    if kind != "eager":
        message = (
            f"output_attentions=True needs attentions, and {kind!r} never computes them as such: call "
            "model.set_attn_implementation('eager') before"
        )
        raise CapabilityError(message)


def negative_prompts(
    model: "PreTrainedModel", ids: Any, mask: Any, request: Request
) -> list[list[int]] | None:
    """The negative prompt of each prompt; None when the call is not guided.

    Args:
        model: the call's.
        ids: int64 [P, T], or [1, T] for all; left out, the last token of each prompt.
        mask: [P, T], which of them are tokens.
        request: the call's.

    Raises:
        ParameterError: there is no guidance, or the ids and their mask do not fit.
    """
    scale = request.config.guidance_scale
    guided = scale is not None and scale != 1
    needs = "guidance_scale=... (above 1)" if not guided else "negative_prompt_ids=..."
    for name, value in (("negative_prompt_ids", ids), ("negative_prompt_attention_mask", mask)):
        if value is not None and (not guided or ids is None):
            message = f"{name} would have no effect: add {needs}, or leave it out"
            raise ParameterError(message)
    if not guided:
        return None
    if request.source_ids is not None or request.model_inputs.encode is not None:
        message = (
            f"guidance_scale={scale} needs a model of text alone: a prompt with an encoder's output has no "
            "negative one; leave it out"
        )
        raise UnsupportedArgumentError(message)
    if ids is None:
        if not all(request.prompts):
            message = (
                "guidance_scale needs negative_prompt_ids where prompts are given as inputs_embeds alone"
            )
            raise ParameterError(message)
        return [prompt[-1:] for prompt in request.prompts]
    return _given_negatives(model, ids, mask, len(request.prompts))


def _given_negatives(model: "PreTrainedModel", ids: Any, mask: Any, count: int) -> list[list[int]]:
    ids = to_tensor("negative_prompt_ids", ids, model.device)
    check_ids(model, ids, "negative_prompt_ids")
    shown = torch.ones_like(ids)
    if mask is not None:
        shown = to_tensor("negative_prompt_attention_mask", mask, model.device)
        check_mask(shown, ids, "negative_prompt_attention_mask", "negative_prompt_ids")
    if len(ids) not in (1, count) or not bool(shown.bool().any(1).all()):
        message = (
            f"negative_prompt_ids has shape {list(ids.shape)}: it must be int64 [{count}, length] or "
            "[1, length], with at least one token a row"
        )
        raise ParameterError(message)
    found = [row[seen].tolist() for row, seen in zip(ids, shown.bool(), strict=True)]
    return found * (count // len(found))


def open_guidance(model: "PreTrainedModel", request: Request, strategy: Strategy) -> Guidance | None:
    """The second stream of a guided call."""
    scale = request.config.guidance_scale
    if scale is None or scale == 1:
        return None
    kind = "none" if request.config.use_cache is False else "dynamic"
    session = Session(model, cache=kind)
    check_needs(strategy, session)
    return Guidance(scale, session)


def draft_inputs(
    strategy: Strategy, name: str, other: "PreTrainedModel", model: Any, request: Request, rows: int
) -> ModelInputs | None:
    """Check a further model of a strategy; what it is given beside tokens, if it is fed a source as well.

    Raises:
        ParameterError: its vocabulary is another one, or it is no encoder-decoder model where the target is.
        CapabilityError: the strategy needs what its session can't do.
    """
    check_vocabulary(strategy, name, other, model)
    check_needs(strategy, Session(other, single=rows == 1))
    if request.inputs_for is None:
        return None
    if not other.config.is_encoder_decoder:
        message = (
            f"the {name} model of strategy={strategy.NAME!r} is {type(other).__name__}, which has no "
            f"encoder: choose one of the kind of {type(model).__name__}"
        )
        raise ParameterError(message)
    return request.inputs_for(other)

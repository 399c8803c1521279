"""What a call asks for, read by transformers' own rules."""

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.cache_utils import Cache
from transformers.generation.utils import ALL_CACHE_NAMES

from decodekit import caches
from decodekit import transformers_hooks as hooks
from decodekit.arguments import check_values
from decodekit.checks import check_embeds, check_ids, check_mask, fill_empty, full_mask, to_tensor
from decodekit.errors import ParameterError, UnsupportedArgumentError
from decodekit.model_inputs import ONCE, Columns, ModelInputs, align_right

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Request", "read_request"]

Tokens = list[list[int]]


@attrs.frozen(eq=False, kw_only=True)
class Request:
    """A call's inputs and configuration, with every default filled in.

    Attributes:
        config: the merged configuration: keywords, then the given one, then the model's, then defaults.
        mode: what transformers would do with it: "greedy_search", "sample", "beam_search", …
        input_ids: int64 [B, T] as given (the decoder's); an empty prompt is one BOS token; [B, 0] where
            the prompts are embeddings alone.
        mask: bool [B, T], which of ``input_ids`` are tokens.
        prompts: the B prompts without padding, as processors and the result see them.
        contexts: what the model is fed for them, where that is something else: a placeholder 0 for each
            embedding, and for each token that ``cache`` holds already.
        source_ids: an encoder's token ids without padding; empty where it reads no tokens, None where there
            is no encoder.
        max_new_tokens: the most tokens after the T input columns; ``config.min_new_tokens`` is the least.
        eos_token_ids: may be empty.
        pad_token_id: what fills finished rows; the first EOS id when there is no pad id, else 0.
        model_inputs: what the model is given beside tokens.
        cache: the caller's ``past_key_values``, which the call goes on from.
        past: bool [B, W], which of its W columns are tokens.
        layout: bool [B, W + n], which columns are tokens of all that the model is fed as prompts.
        inputs_for: what another encoder-decoder model is given beside tokens.
    """

    config: GenerationConfig
    mode: str
    input_ids: Tensor
    mask: Tensor
    prompts: Tokens
    contexts: Tokens
    source_ids: Tokens | None
    max_new_tokens: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    model_inputs: ModelInputs
    cache: Cache | None
    past: Tensor | None
    layout: Tensor
    inputs_for: Callable[["PreTrainedModel"], ModelInputs] | None


def read_request(
    model: "PreTrainedModel",
    inputs: Tensor | None,
    generation_config: GenerationConfig | None,
    kwargs: Mapping[str, Any],
    assistant_model: "PreTrainedModel | None" = None,
) -> Request:
    """Read a call as ``model.generate`` would; the model and the given configuration stay as they are.

    Raises:
        ValueError: whatever transformers finds wrong, in its words.
        UnsupportedArgumentError: the model decodes in a loop of its own.
        ParameterError: an attention mask would have to be guessed, or has a wrong shape.
    """
    given = {name: value for name, value in kwargs.items() if value is not None}
    values = {**hooks.set_fields(model.generation_config), **hooks.set_fields(generation_config), **given}
    check_values(values)
    nothing = values.get("max_new_tokens") == 0  # the prompt is the answer
    generation_config, kwargs = _without_zero(generation_config, model.generation_config, kwargs)
    own_max = _is_set(model, generation_config, kwargs, "max_length")
    own_min = _is_set(model, generation_config, kwargs, "min_length")
    config, model_kwargs = hooks.merged_config(model, generation_config, kwargs)
    mode = hooks.checked_mode(model, config, assistant_model)
    hooks.check_names(model, config, model_kwargs)
    read = _read_inputs(model, inputs, config, model_kwargs)
    input_ids = read.input_ids
    config = hooks.final_lengths(
        model, config, read.main, read.main_name, input_ids.shape[1], own_max=own_max, own_min=own_min
    )
    config.min_new_tokens = max((config.min_length or 0) - input_ids.shape[1], 0)
    eos = config._eos_token_tensor
    pad = config._pad_token_tensor
    prompts = [row[seen].tolist() for row, seen in zip(input_ids, read.mask, strict=True)]
    return Request(
        config=config,
        mode=mode,
        input_ids=input_ids,
        mask=read.mask,
        prompts=prompts,
        contexts=read.contexts or prompts,
        source_ids=read.source_ids,
        max_new_tokens=0 if nothing else config.max_length - input_ids.shape[1],
        eos_token_ids=tuple(eos.tolist()) if eos is not None else (),
        pad_token_id=int(pad) if pad is not None else 0,
        model_inputs=read.model_inputs,
        cache=read.cache,
        past=read.past,
        layout=read.layout if read.layout is not None else read.mask,
        inputs_for=read.inputs_for,
    )


def _without_zero(
    config: GenerationConfig | None, own: GenerationConfig, kwargs: Mapping[str, Any]
) -> tuple[GenerationConfig | None, Mapping[str, Any]]:
    """Configuration and keywords with a max_new_tokens of 1 for one of 0, which transformers refuses."""
    found = [each.max_new_tokens for each in (config, own) if each is not None]
    if next((count for count in found if count is not None), None) == 0:
        config = copy.copy(config) if config is not None else GenerationConfig()
        config.max_new_tokens = 1
    return config, {**kwargs, "max_new_tokens": 1} if kwargs.get("max_new_tokens") == 0 else kwargs


def _is_set(
    model: "PreTrainedModel", config: GenerationConfig | None, kwargs: Mapping[str, Any], name: str
) -> bool:
    places = (kwargs.get(name), getattr(config, name, None), getattr(model.generation_config, name))
    return any(value is not None for value in places)


@attrs.define(eq=False, kw_only=True)
class _Read:
    """The inputs of a call; see `Request`. ``main`` is what the model or its encoder starts from."""

    main: Tensor
    main_name: str
    input_ids: Tensor
    mask: Tensor
    model_inputs: ModelInputs
    contexts: Tokens | None = None
    source_ids: Tokens | None = None
    cache: Cache | None = None
    past: Tensor | None = None
    layout: Tensor | None = None
    inputs_for: Callable[["PreTrainedModel"], ModelInputs] | None = None


def _read_inputs(
    model: "PreTrainedModel", inputs: Tensor | None, config: GenerationConfig, model_kwargs: dict[str, Any]
) -> _Read:
    if isinstance(inputs, (Mapping, str)):
        message = (
            f"inputs is a {type(inputs).__name__}: pass a tokenizer's output as keywords, "
            "generate(model, **tokenizer(text, return_tensors='pt')), or give the text to decodekit.stream"
        )
        raise ParameterError(message)
    inputs = to_tensor("inputs", inputs, model.device) if inputs is not None else None
    for name in _TENSORS:
        if model_kwargs.get(name) is not None:
            model_kwargs[name] = to_tensor(name, model_kwargs[name], model.device)
    main, name, model_kwargs = hooks.main_input(model, inputs, config, model_kwargs)
    model_kwargs.pop("labels", None)  # of a batch for training; nothing is generated from them
    if not isinstance(main, Tensor) or not main.dim() or not len(main):
        message = (
            f"{name} is {_shape(main)}: it must be a tensor with at least one row; give at least one prompt"
        )
        raise ParameterError(message)
    if model.config.is_encoder_decoder:
        return _read_pair(model, main, name, config, model_kwargs)
    return _read_decoder(model, main, name, config, model_kwargs)


def _shape(value: Any) -> str:
    return f"of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _read_pair(
    model: "PreTrainedModel", main: Tensor, name: str, config: GenerationConfig, model_kwargs: dict[str, Any]
) -> _Read:
    """The inputs of an encoder-decoder model: the encoder's, and the beginning of the decoder's."""
    mask = model_kwargs.get("attention_mask")
    is_ids = main.dim() == 2 and not main.is_floating_point() and "encoder_outputs" not in model_kwargs
    source: Tokens = []
    if is_ids:
        check_ids(model, main, "input_ids")
        if mask is not None:
            check_mask(mask, main, "attention_mask", "input_ids")
        seen = mask.bool() if mask is not None else torch.ones_like(main, dtype=torch.bool)
        source = [row[kept].tolist() for row, kept in zip(main, seen, strict=True)]
    _check_beginning(model, len(main), name, model_kwargs)
    input_ids, model_kwargs = hooks.decoder_start(model, main, name, config, model_kwargs)
    own_mask = model_kwargs.pop("decoder_attention_mask", None)
    if own_mask is not None:
        check_mask(own_mask, input_ids, "decoder_attention_mask", "decoder_input_ids")
    own_mask = own_mask.bool() if own_mask is not None else torch.ones_like(input_ids, dtype=torch.bool)
    input_ids, own_mask = fill_empty(input_ids.long(), own_mask, config)
    cache = _caller_cache(model, model_kwargs)
    read = _Read(main=main, main_name=name, input_ids=input_ids, mask=own_mask, model_inputs=ModelInputs())
    read.source_ids = source
    _go_on(read, cache, own_mask, input_ids)

    def inputs_for(other: "PreTrainedModel") -> ModelInputs:
        return ModelInputs(
            given=model_kwargs, encode=lambda: hooks.encoded(other, main, name, config, model_kwargs)
        )

    read.model_inputs, read.inputs_for = inputs_for(model), inputs_for
    return read


def _check_beginning(model: "PreTrainedModel", rows: int, name: str, model_kwargs: dict[str, Any]) -> None:
    """Raise `ParameterError` unless the decoder's ids that are given have a row for each source."""
    own = "decoder_input_ids" if "decoder_input_ids" in model_kwargs or name == "input_ids" else "input_ids"
    ids, mask = model_kwargs.get(own), model_kwargs.get("decoder_attention_mask")
    if ids is None:
        return
    check_ids(model, ids, own)
    if len(ids) != rows:
        message = f"{own} has {len(ids)} rows and {name} {rows}: give a beginning for each, or leave it out"
        raise ParameterError(message)
    if mask is not None:
        check_mask(mask, ids, "decoder_attention_mask", own)


def _read_decoder(
    model: "PreTrainedModel", main: Tensor, name: str, config: GenerationConfig, model_kwargs: dict[str, Any]
) -> _Read:
    """The inputs of a decoder-only model: token ids, embeddings, or both."""
    embeds = model_kwargs.pop("inputs_embeds", None)
    if name == "inputs_embeds":
        config.use_cache = True  # or the embeddings would have to be fed again
    input_ids = main if name == "input_ids" else model_kwargs.pop("input_ids", None)
    if input_ids is None:
        message = (
            f"{type(model).__name__} got {name}= alone: decodekit decodes from token ids or inputs_embeds, "
            "pass what the model's processor gives for a text as well"
        )
        raise UnsupportedArgumentError(message)
    columns = embeds if embeds is not None else input_ids
    cache = _caller_cache(model, model_kwargs)
    fresh = cache is None or not int(cache.get_seq_length())
    mask = model_kwargs.pop("attention_mask", None)
    check_ids(model, input_ids, "input_ids")
    if embeds is not None:
        check_embeds(embeds)
    if mask is not None:
        whose = "input_ids" if embeds is None else "inputs_embeds"
        check_mask(mask, columns, "attention_mask", whose, longer=not fresh)
    mask = (
        mask.bool().to(columns.device) if mask is not None else full_mask(columns, config, cache, input_ids)
    )
    input_ids = input_ids.long()
    if fresh and embeds is None:
        input_ids, mask = fill_empty(input_ids, mask, config)
        columns = input_ids
    own = mask if embeds is None else mask.new_ones(input_ids.shape)
    if own.shape != input_ids.shape:
        own = mask[:, mask.shape[1] - input_ids.shape[1] :]
    read = _Read(main=main, main_name=name, input_ids=input_ids, mask=own, model_inputs=ModelInputs())
    new = _go_on(read, cache, mask, columns)
    if embeds is not None and fresh:
        read.contexts = [[0] * count for count in new.sum(1).tolist()]
    read.layout = mask
    read.model_inputs = _model_inputs(model, main, name, config, model_kwargs, input_ids, embeds, mask, new)
    return read


def _caller_cache(model: "PreTrainedModel", model_kwargs: dict[str, Any]) -> Cache | None:
    given = {key: model_kwargs.pop(key) for key in ALL_CACHE_NAMES if key in model_kwargs}
    for key, cache in given.items():
        if not isinstance(cache, Cache):
            message = (
                f"{key} is a {type(cache).__name__}: pass a transformers.Cache, e.g. "
                "DynamicCache(config=model.config)"
            )
            raise ParameterError(message)
        return cache
    return None


def _go_on(read: _Read, cache: Cache | None, mask: Tensor, columns: Tensor) -> Tensor:
    """Find where the new tokens begin; returns which of the new columns are tokens, bool [B, n]."""
    past = int(cache.get_seq_length()) if cache is not None else 0
    rows = caches.rows(cache) if cache is not None else None
    if rows not in (None, len(mask)):
        message = (
            f"past_key_values holds {rows} rows, and there are {len(mask)} prompts: give as many as it was "
            "filled with, or a new cache"
        )
        raise ParameterError(message)
    read.cache = cache
    if not past:
        return mask
    whole = mask.shape[1] == columns.shape[1]  # or else the columns are the new ones alone
    if mask.shape[1] <= past or (not whole and mask.shape[1] != past + columns.shape[1]):
        message = (
            f"past_key_values holds {past} tokens, attention_mask has {mask.shape[1]} columns and "
            f"{columns.shape[1]} columns are given: give the whole text so far, or the new tokens with a "
            f"mask of {past} + their number of columns; at least one must be new"
        )
        raise ParameterError(message)
    read.past, new = mask[:, :past], mask[:, past:]
    if not bool(new.any(1).all()):
        message = "a prompt has no token beyond past_key_values: give every row at least one new token"
        raise ParameterError(message)
    fresh = columns[:, past:] if whole else columns
    read.contexts = [
        [0] * held + (row[seen].tolist() if fresh.dim() == 2 else [0] * int(seen.sum()))
        for held, row, seen in zip(read.past.sum(1).tolist(), fresh, new, strict=True)
    ]
    return new


def _model_inputs(
    model: "PreTrainedModel",
    main: Tensor,
    name: str,
    config: GenerationConfig,
    model_kwargs: dict[str, Any],
    input_ids: Tensor,
    embeds: Tensor | None,
    mask: Tensor,
    new: Tensor,
) -> ModelInputs:
    """What a decoder-only model is given beside token ids."""
    as_given = {**model_kwargs, "attention_mask": mask.long()}
    columns = {
        key: Columns.of(_over_all(key, model_kwargs.pop(key), mask, new), mask, after)
        for key, after in _COLUMNS.items()
        if isinstance(model_kwargs.get(key), Tensor)
    }
    if "position_ids" not in columns and hooks.has_own_positions(model):
        ids = {} if embeds is None else {"input_ids": input_ids}
        positions = hooks.own_positions(model, main, {**as_given, **ids})
        columns["position_ids"] = Columns.of(
            positions.expand(*positions.shape[:-2], len(main), -1), mask, "count"
        )
    if embeds is not None:
        embeds = align_right(embeds[:, embeds.shape[1] - new.shape[1] :], new)
    multimodal = any(key in ONCE for key in model_kwargs) and config.use_cache is not False
    encode = (lambda: hooks.encoded(model, main, name, config, model_kwargs)) if multimodal else None
    return ModelInputs(given=model_kwargs, columns=columns, inputs_embeds=embeds, encode=encode)


def _over_all(name: str, values: Tensor, mask: Tensor, new: Tensor) -> Tensor:
    """Values [..., P, n] for all columns of the mask; what a cache holds already is not asked for."""
    width, count = mask.shape[1], values.shape[-1] if values.dim() > 1 else -1
    fits = count in (width, new.shape[1]) and values.shape[-2] in (1, len(mask))
    if not fits or values.is_floating_point():
        message = (
            f"{name} has shape {list(values.shape)} and dtype {values.dtype}, and attention_mask shape "
            f"{list(mask.shape)}: give int64 [batch, length], a value for each column, or for each new column"
        )
        raise ParameterError(message)
    filled = torch.nn.functional.pad(values, (width - count, 0))
    return filled.expand(*filled.shape[:-2], len(mask), width)


_COLUMNS: dict[str, Literal["count", "last", "zero"]] = {
    "position_ids": "count",
    "token_type_ids": "last",
    "mm_token_type_ids": "zero",
    "moe_mm_token_type_ids": "zero",
}
"""Inputs with a value for each token, and how they go on after the prompt."""
_TENSORS = (
    *("input_ids", "attention_mask", "inputs_embeds", "decoder_input_ids", "decoder_attention_mask"),
    *_COLUMNS,
)
"""Inputs that may be lists or arrays as well."""

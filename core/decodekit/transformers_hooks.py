"""What a call asks for, read by transformers' own rules: the only module that uses its private hooks."""

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from transformers import GenerationConfig

from decodekit.errors import ParameterError, UnsupportedArgumentError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Request", "read_request", "set_fields"]


@attrs.frozen(eq=False, kw_only=True)
class Request:
    """A call's inputs and configuration, with every default filled in.

    Attributes:
        config: the merged configuration: keywords, then the given one, then the model's, then defaults.
        mode: what transformers would do with it: "greedy_search", "sample", "beam_search", …
        input_ids: int64 [B, T] as given; an empty prompt is one BOS token.
        prompts: the B prompts without padding.
        max_new_tokens: the most tokens after the T input columns; ``config.min_new_tokens`` is the least.
        eos_token_ids: may be empty.
        pad_token_id: what fills finished rows; the first EOS id when there is no pad id, else 0.
    """

    config: GenerationConfig
    mode: str
    input_ids: Tensor
    prompts: list[list[int]]
    max_new_tokens: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int


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
        UnsupportedArgumentError: a model input that decodekit does not take.
        ParameterError: an attention mask would have to be guessed, or has a wrong shape.
    """
    if model.config.is_encoder_decoder:
        message = (
            f"{type(model).__name__} is an encoder-decoder model; decodekit takes decoder-only models so far"
        )
        raise UnsupportedArgumentError(message)
    nothing = kwargs.get("max_new_tokens") == 0
    if nothing:
        kwargs = {**kwargs, "max_new_tokens": 1}  # transformers refuses 0, where the prompt is the answer
    own_max = _is_set(model, generation_config, kwargs, "max_length")
    own_min = _is_set(model, generation_config, kwargs, "min_length")
    config, model_kwargs = model._prepare_generation_config(generation_config, **kwargs)
    _check_config(config)
    mode = str(config.get_generation_mode(assistant_model).value)
    model_kwargs = {name: value for name, value in model_kwargs.items() if not hasattr(config, name)}
    _check_names(model, config, model_kwargs)
    input_ids, mask = _inputs(model, inputs, config, model_kwargs)
    config = model._prepare_generated_length(
        generation_config=config,
        has_default_max_length=not own_max,
        has_default_min_length=not own_min,
        model_input_name="input_ids",
        input_ids_length=input_ids.shape[1],
        inputs_tensor=input_ids,
    )
    model._validate_generated_length(config, input_ids.shape[1], not own_max)
    config.min_new_tokens = max((config.min_length or 0) - input_ids.shape[1], 0)
    eos = config._eos_token_tensor
    pad = config._pad_token_tensor
    return Request(
        config=config,
        mode=mode,
        input_ids=input_ids,
        prompts=[row[seen].tolist() for row, seen in zip(input_ids, mask, strict=True)],
        max_new_tokens=0 if nothing else config.max_length - input_ids.shape[1],
        eos_token_ids=tuple(eos.tolist()) if eos is not None else (),
        pad_token_id=int(pad) if pad is not None else 0,
    )


def _check_config(config: GenerationConfig) -> None:
    """Raise `ParameterError` for what transformers does not check."""
    if not isinstance(config.do_sample, bool):
        message = f"do_sample={config.do_sample!r} is not allowed: do_sample must be True or False"
        raise ParameterError(message)
    for name in ("max_new_tokens", "max_length", "num_return_sequences"):
        value = getattr(config, name)
        if value is not None and not (isinstance(value, Integral) and int(value) >= 1):
            message = (
                f"{name}={value!r} is not allowed: {name} must be int in [1, inf); "
                "leave it out for the default"
            )
            raise ParameterError(message)


def _check_names(model: "PreTrainedModel", config: GenerationConfig, model_kwargs: dict[str, Any]) -> None:
    """Let transformers name the keywords that nobody knows, and add the nearest known ones."""
    try:
        model._validate_model_kwargs(dict(model_kwargs))
    except ValueError as error:
        known = [
            *config.to_dict(),
            "input_ids",
            "attention_mask",
            "strategy",
            "processors",
            "seed",
            "tokenizer",
        ]
        message = f"{error}{''.join(nearest(name, known) for name in model_kwargs if name not in known)}"
        raise ParameterError(message) from error


def set_fields(config: GenerationConfig | None) -> dict[str, Any]:
    """The fields of a configuration that are set; None has none.

    Raises:
        ParameterError: it is something else than a configuration.
    """
    if config is not None and not isinstance(config, GenerationConfig):
        message = (
            f"generation_config={config!r} is not allowed: it must be a transformers.GenerationConfig; "
            "pass single fields as keywords"
        )
        raise ParameterError(message)
    fields = vars(config) if config is not None else {}
    return {name: value for name, value in fields.items() if value is not None and not name.startswith("_")}


def _is_set(
    model: "PreTrainedModel", config: GenerationConfig | None, kwargs: Mapping[str, Any], name: str
) -> bool:
    places = (kwargs.get(name), getattr(config, name, None), getattr(model.generation_config, name))
    return any(value is not None for value in places)


def _inputs(
    model: "PreTrainedModel", inputs: Tensor | None, config: GenerationConfig, model_kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """The input ids int64 [B, T], and which of them are tokens, bool [B, T]: at least one a row."""
    inputs = torch.as_tensor(inputs) if isinstance(inputs, list) else inputs
    for name in ("input_ids", "attention_mask"):
        if isinstance(model_kwargs.get(name), list):
            model_kwargs[name] = torch.tensor(model_kwargs[name], device=model.device)
    mask = model_kwargs.pop("attention_mask", None)
    if isinstance(inputs, (Mapping, str)):
        message = (
            f"inputs is a {type(inputs).__name__}: pass a tokenizer's output as keywords, "
            "generate(model, **tokenizer(text, return_tensors='pt')), or give the text to decodekit.stream"
        )
        raise ParameterError(message)
    input_ids, name, rest = model._prepare_model_inputs(inputs, config.bos_token_id, model_kwargs)
    left = [key for key, value in rest.items() if value is not None]
    if name != "input_ids" or left:
        message = (
            f"{', '.join(left) or name}: decodekit takes input_ids and attention_mask as model inputs so far"
        )
        raise UnsupportedArgumentError(message)
    _check_ids(model, input_ids, mask)
    model._prepare_special_tokens(
        config, mask is not None, device=input_ids.device, batch_size=len(input_ids)
    )
    mask = mask.bool().to(input_ids.device) if mask is not None else _full_mask(input_ids, config)
    return _fill_empty(input_ids.long(), mask, config)


def _check_ids(model: "PreTrainedModel", input_ids: Tensor, mask: Tensor | None) -> None:
    if input_ids.dim() != 2 or input_ids.is_floating_point() or not len(input_ids):
        message = (
            f"input_ids has shape {list(input_ids.shape)} and dtype {input_ids.dtype}: "
            "it must hold token ids, int64 [batch, length] with at least one row; "
            "add a dimension to a single prompt with ids[None]"
        )
        raise ParameterError(message)
    if mask is not None and mask.shape != input_ids.shape:
        message = (
            f"attention_mask has shape {list(mask.shape)} and input_ids {list(input_ids.shape)}: they "
            "must be equal; pass the mask that the tokenizer gave with these ids"
        )
        raise ParameterError(message)
    vocab_size = model.config.get_text_config().vocab_size
    if input_ids.numel() and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < vocab_size:
        message = (
            f"input_ids holds ids from {int(input_ids.min())} to {int(input_ids.max())}: they must be in "
            f"[0, {vocab_size}), the model's vocabulary; use the tokenizer that belongs to the model"
        )
        raise ParameterError(message)


def _full_mask(input_ids: Tensor, config: GenerationConfig) -> Tensor:
    """Everything is a token; refused where transformers would guess that the pad ids are not."""
    pad, eos = config._pad_token_tensor, config._eos_token_tensor
    pad_is_eos = pad is not None and eos is not None and bool(torch.isin(pad, eos))
    if pad is not None and not pad_is_eos and bool((input_ids == pad).any()):
        message = (
            f"attention_mask is missing and input_ids holds pad_token_id={int(pad)}: pass the tokenizer's "
            "attention_mask, or torch.ones_like(input_ids) when these are tokens like others"
        )
        raise ParameterError(message)
    return torch.ones_like(input_ids, dtype=torch.bool)


def _fill_empty(input_ids: Tensor, mask: Tensor, config: GenerationConfig) -> tuple[Tensor, Tensor]:
    """Give an empty prompt its BOS token."""
    empty = ~mask.any(dim=1)
    if not bool(empty.any()):
        return input_ids, mask
    if config._bos_token_tensor is None:
        message = (
            "a prompt is empty and the model has no bos_token_id to start from: give it at least one token"
        )
        raise ParameterError(message)
    if input_ids.shape[1] == 0:
        input_ids, mask = input_ids.new_zeros(len(input_ids), 1), mask.new_zeros(len(input_ids), 1)
    input_ids, mask = input_ids.clone(), mask.clone()
    input_ids[empty, -1] = config._bos_token_tensor.to(input_ids)
    mask[empty, -1] = True
    return input_ids, mask

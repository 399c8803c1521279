"""transformers' own steps of ``generate``, where decodekit follows them: all private hooks that it uses."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import Cache
from transformers.generation.utils import ALL_CACHE_NAMES
from transformers.utils import output_capturing

from decodekit.errors import ParameterError, UnsupportedArgumentError, nearest
from decodekit.params import params_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "OneToken",
    "carries_on",
    "carry_on",
    "check_model",
    "check_names",
    "checked_mode",
    "compiled_call",
    "decoder_start",
    "encoded",
    "final_lengths",
    "has_own_positions",
    "heal_tokens",
    "hooked_part",
    "is_hooked",
    "main_input",
    "merged_config",
    "own_positions",
    "set_fields",
    "synced_ranks",
    "takes_cache",
]


def check_model(model: "PreTrainedModel") -> None:
    """Raise `UnsupportedArgumentError` for a model whose loop is no loop over tokens."""
    if isinstance(model, str):
        message = f"model={model!r} is a text: load it first, model, tokenizer = decodekit.load({model!r})"
        raise ParameterError(message)
    if not isinstance(model, GenerationMixin):
        message = (
            f"{type(model).__name__} has no language model's head and can't generate: load it with "
            "AutoModelForCausalLM or AutoModelForSeq2SeqLM"
        )
        raise ParameterError(message)
    for name in ("_sample", "_get_logits_processor", "_get_stopping_criteria", "_prefill"):
        if getattr(type(model), name) is not getattr(GenerationMixin, name):
            message = (
                f"{type(model).__name__} decodes in a way of its own ({name.strip('_')}), which decodekit's "
                "strategies would not follow: call model.generate"
            )
            raise UnsupportedArgumentError(message)


def merged_config(
    model: "PreTrainedModel", generation_config: GenerationConfig | None, kwargs: Mapping[str, Any]
) -> tuple[GenerationConfig, dict[str, Any]]:
    """The configuration of a call, and the keywords that are no fields of it."""
    try:
        config, model_kwargs = model._prepare_generation_config(generation_config, **kwargs)
    except (AttributeError, TypeError) as error:  # of its own checks, which expect the right types
        fields = vars(GenerationConfig())
        given = [f"{name}={value!r}" for name, value in kwargs.items() if name in fields]
        message = (
            f"the configuration is not allowed ({error}): look at {', '.join(given) or 'generation_config'}, "
            "whose types transformers.GenerationConfig documents"
        )
        raise ParameterError(message) from error
    return config, {name: value for name, value in model_kwargs.items() if not hasattr(config, name)}


def checked_mode(model: "PreTrainedModel", config: GenerationConfig, assistant_model: Any) -> str:
    """What transformers would do with a configuration: "greedy_search", "sample", "beam_search", …

    Raises:
        UnsupportedArgumentError: the model can't be decoded so.
    """
    mode = config.get_generation_mode(assistant_model)
    known = getattr(model, "_supported_generation_modes", None)
    if known is not None and mode not in known:
        message = (
            f"the arguments ask for {mode.value}, and {type(model).__name__} can only do "
            f"{', '.join(each.value for each in known)}: leave out what asks for it (do_sample, num_beams, "
            "assistant_model, prompt_lookup_num_tokens)"
        )
        raise UnsupportedArgumentError(message)
    return str(mode.value)


def check_names(model: "PreTrainedModel", config: GenerationConfig, model_kwargs: dict[str, Any]) -> None:
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
        from decodekit.load import of_load  # not above: it loads what this module is for

        unknown = [name for name in model_kwargs if name not in known]
        advice = [_whose(name) or of_load(name) or nearest(name, known) for name in unknown]
        message = f"{error}{''.join(advice)}"
        raise ParameterError(message) from error


def _whose(name: str) -> str:
    """The strategies of which ``name`` is a parameter, to name beside it."""
    from decodekit.registry import registry  # not above: it knows strategies, and these know this module

    every = registry().entries("strategies").items()
    owners = [f"strategy={owner!r}" for owner, found in every if name in params_of(found[0].cls)]
    return f" {name} is a parameter of {' and '.join(owners)}." if owners else ""


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


def main_input(
    model: "PreTrainedModel", inputs: Tensor | None, config: GenerationConfig, model_kwargs: dict[str, Any]
) -> tuple[Any, str, dict[str, Any]]:
    """What the model, or its encoder, starts from; its name; and the other inputs."""
    main, name, rest = model._prepare_model_inputs(inputs, config.bos_token_id, model_kwargs)
    if isinstance(main, Tensor) and main.dim():
        given = rest.get("attention_mask") is not None
        model._prepare_special_tokens(config, given, device=main.device, batch_size=len(main))
    return main, str(name), {key: value for key, value in rest.items() if value is not None}


def decoder_start(
    model: "PreTrainedModel", main: Tensor, name: str, config: GenerationConfig, model_kwargs: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    """The beginning of the decoder's rows, int64 [B, T], and the other inputs."""
    start: tuple[Tensor, dict[str, Any]] = model._prepare_decoder_input_ids_for_generation(
        batch_size=len(main),
        model_input_name=name,
        model_kwargs=model_kwargs,
        decoder_start_token_id=config._decoder_start_token_tensor,
        device=main.device,
    )
    return start


def final_lengths(
    model: "PreTrainedModel",
    config: GenerationConfig,
    main: Tensor,
    name: str,
    width: int,
    *,
    own_max: bool,
    own_min: bool,
) -> GenerationConfig:
    """With ``max_length`` and ``min_length`` in columns of the result.

    Args:
        model: the call's.
        config: the merged configuration.
        main: what the model starts from, and its ``name``.
        name: see ``main``.
        width: columns of the input ids.
        own_max: whether somebody set max_length.
        own_min: whether somebody set min_length.
    """
    config = model._prepare_generated_length(
        generation_config=config,
        has_default_max_length=not own_max,
        has_default_min_length=not own_min,
        model_input_name=name,
        input_ids_length=width,
        inputs_tensor=main,
    )
    model._validate_generated_length(config, width, not own_max)
    return config


def encoded(
    model: "PreTrainedModel", main: Tensor, name: str, config: GenerationConfig, model_kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Run the encoders, text's or images', and put their outputs in the place of what they were given."""
    if model_kwargs.get("encoder_outputs") is not None and model_kwargs.get("mm_encoder_outputs") is not None:
        return model_kwargs
    with _placement_kept(model):
        encoded: dict[str, Any] = model._maybe_prepare_encoder_kwargs_for_generation(
            main, dict(model_kwargs), name, config
        )
    return {key: value for key, value in encoded.items() if value is not None}


@contextlib.contextmanager
def _placement_kept(model: "PreTrainedModel") -> Iterator[None]:
    """transformers hooks the encoder of a model that is spread over devices; take the hook away again."""
    encoder = (
        model.get_encoder() if hasattr(model, "hf_device_map") and model.config.is_encoder_decoder else None
    )
    hook = getattr(encoder, "_hf_hook", None)
    same_device = getattr(hook, "io_same_device", None)
    try:
        yield
    finally:
        if hook is not None:
            hook.io_same_device = same_device
        elif encoder is not None:
            from accelerate.hooks import remove_hook_from_module  # only models that it spread are here

            remove_hook_from_module(encoder)


def has_own_positions(model: "PreTrainedModel") -> bool:
    """Whether the positions of the model's tokens are not just counted."""
    own = type(model)._prepare_position_ids_for_generation
    return own is not GenerationMixin._prepare_position_ids_for_generation


def own_positions(model: "PreTrainedModel", main: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
    """The model's own positions [..., B, T]; some models keep what they found, which is put back."""
    kept = [(module, module.rope_deltas) for module in model.modules() if hasattr(module, "rope_deltas")]
    try:
        positions: Tensor = model._prepare_position_ids_for_generation(main, model_kwargs)
    finally:
        for module, value in kept:
            module.rope_deltas = value
    return positions


def carries_on(model: "PreTrainedModel") -> bool:
    """Whether the model has inputs of its own that grow with each token."""
    own = type(model)._update_model_kwargs_for_generation
    return own is not GenerationMixin._update_model_kwargs_for_generation


def carry_on(model: "PreTrainedModel", output: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own inputs after one more token."""
    carried: dict[str, Any] = model._update_model_kwargs_for_generation(
        output, dict(given), is_encoder_decoder=model.config.is_encoder_decoder
    )
    return {name: value for name, value in carried.items() if name not in ALL_CACHE_NAMES}


def takes_cache(model: "PreTrainedModel") -> bool:
    """Whether the model works with transformers' caches; a few old ones have a format of their own."""
    return bool(model._supports_default_dynamic_cache())


def heal_tokens(model: "PreTrainedModel", input_ids: Tensor, tokenizer: Any) -> Tensor:
    """transformers' token healing: the last token of each prompt is chosen anew, by the model."""
    healed: Tensor = model.heal_tokens(input_ids, tokenizer)
    return healed


def hooked_part(model: "PreTrainedModel") -> str | None:
    """The name of a module with hooks of somebody, see `is_hooked`; None where there is none."""
    hooked = next(filter(is_hooked, model.modules()), None)
    if hooked is None:
        return None
    return next(name or "the model" for name, part in model.named_modules() if part is hooked)


def is_hooked(part: torch.nn.Module) -> bool:
    """Whether somebody has hooks on a module, other than those by which transformers records outputs."""
    hooks = (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    theirs = all(getattr(hook, "__module__", None) == output_capturing.__name__ for hook in hooks)
    return not theirs or "_hf_hook" in vars(part)  # accelerate's, which moves its weights or inputs


@attrs.frozen
class OneToken:
    """transformers' compiled forward, which is for passes of one token a row.

    As CUDA graphs it writes every output to the place of the last one, so that outputs are copied.
    """

    run: Callable[..., Any]

    def for_pass(self, batch: int, count: int, *, prompt: bool) -> "OneToken | None":
        """What runs a pass over [B, n] tokens; None is the model itself."""
        return self if count == 1 and not prompt else None

    def __call__(self, **inputs: Any) -> Any:
        """The model's output."""
        output = self.run(**inputs)
        for name, value in output.items():
            output[name] = _copied(value)
        return output


def _copied(value: Any) -> Any:
    """Tensors, and tuples of them, anew; a cache as it is."""
    if isinstance(value, Tensor):
        return value.clone()
    return tuple(map(_copied, value)) if isinstance(value, tuple) else value


def compiled_call(model: "PreTrainedModel", config: GenerationConfig, cache: Cache | None) -> OneToken | None:
    """The model's compiled forward pass where transformers would compile it; else None."""
    if not model._valid_auto_compile_criteria({"past_key_values": cache}, config):
        return None
    return OneToken(model.get_compiled_call(config.compile_config))


def synced_ranks(model: "PreTrainedModel", synced_gpus: bool | None) -> bool:
    """Whether all processes must run the same number of forward passes; None lets transformers decide."""
    arguments = model._extract_generation_mode_kwargs(None, {}, synced_gpus, None, None)
    return bool(arguments.get("synced_gpus"))

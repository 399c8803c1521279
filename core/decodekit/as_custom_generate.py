"""Our strategies inside ``model.generate``: what transformers calls instead of its own loop."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import GenerationConfig, UnbatchedClassifierFreeGuidanceLogitsProcessor
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria, MaxTimeCriteria
from transformers.utils import ModelOutput

from decodekit.chain_config import OFF
from decodekit.choice import strategy_pair
from decodekit.contract import BASES, check_class
from decodekit.errors import ParameterError, UnsupportedArgumentError
from decodekit.generate import generate
from decodekit.params import params_of
from decodekit.registry import registry
from decodekit.wrapped import WrappedProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["as_custom_generate"]

_FROM_CONFIG = (EosTokenCriteria, MaxLengthCriteria, MaxTimeCriteria)
_MADE_BY_TRANSFORMERS = {
    *("position_ids", "use_cache", "logits_to_keep", "cache_position", "next_sequence_length"),
    *("output_attentions", "output_hidden_states"),
}


def as_custom_generate(
    strategy: Any,
    *,
    processors: Any = None,
    tokenizer: Any = None,
    streamer: Any = None,
) -> Callable[..., Any]:
    """Make a function for ``model.generate(custom_generate=...)`` that decodes with one of our strategies.

    ``model.generate`` goes on to read the configuration and to build its chain of processors, which the
    strategy then applies unless ``processors`` is given. ``seed=`` and the strategy's own parameters that
    are no fields of the configuration become keywords of that ``model.generate``.

    Args:
        strategy: a name, a pair ``(name, {parameter: value})``, a class or an instance.
        processors: the whole chain as for `decodekit.generate`; left out, transformers' own.
        tokenizer: for processors that need one.
        streamer: gets the tokens; transformers would give it the prompt alone, so pass it here.

    Returns:
        ``(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs)``
        -> int64 [B, T + N], or a `GenerateOutput` with ``return_dict_in_generate=True``.

    Raises:
        UnknownNameError: no installed plugin has the name.
        ParameterError: it is not a strategy.
    """
    cls = _class_of(strategy)

    def custom(
        model: "PreTrainedModel",
        input_ids: Tensor,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        generation_config: GenerationConfig | None = None,
        **more: Any,
    ) -> Any:
        """Decode what transformers has prepared."""
        config = GenerationConfig() if generation_config is None else generation_config
        copies = max(config.num_beams or 1, config.num_return_sequences or 1)
        own = {name: more.pop(name) for name in ("seed", *_keywords(cls)) if name in more}
        theirs, guidance = _without_guidance(logits_processor or ())
        chain = processors if processors is not None else list(map(WrappedProcessor, theirs))
        heeded = OFF.keys() - params_of(cls).keys() if processors is None else ()
        return generate(
            model,
            None,
            _config(config, guidance.pop("guidance_scale", None), heeded),
            stopping_criteria=[
                item for item in stopping_criteria or () if not isinstance(item, _FROM_CONFIG)
            ],
            strategy=strategy,
            processors=chain,
            tokenizer=tokenizer,
            streamer=streamer,
            **guidance,
            **_inputs(model, input_ids, more, copies),
            **own,
        )

    _show_keywords(custom, ("seed", *_keywords(cls)))
    return custom


def _class_of(strategy: Any) -> Any:
    what, _ = strategy_pair(strategy)
    if isinstance(what, str):
        return registry().entry("strategies", what).cls
    cls = what if isinstance(what, type) else type(what)
    if not issubclass(cls, BASES["strategies"]):
        message = (
            f"strategy={strategy!r} is not allowed: it must be a name, a pair (name, {{parameter: value}}), "
            "or a class or an instance of decodekit.Strategy"
        )
        raise ParameterError(message)
    return check_class("strategies", cls)


def _keywords(cls: Any) -> list[str]:
    """The parameters that transformers would not take for fields of the configuration."""
    fields = GenerationConfig().to_dict()
    return [name for name in params_of(cls) if name not in fields]


def _show_keywords(function: Callable[..., Any], names: tuple[str, ...]) -> None:
    """Name further keywords in the signature, from which transformers learns them."""
    signature = inspect.signature(function)
    *kept, rest = signature.parameters.values()
    own = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
    function.__signature__ = signature.replace(parameters=[*kept, *own, rest])  # type: ignore[attr-defined]  # functions have one


def _without_guidance(processors: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Their processors without guidance, which is the core's work, and the arguments that ask for it."""
    guides = [item for item in processors if type(item) is UnbatchedClassifierFreeGuidanceLogitsProcessor]
    if not guides:
        return list(processors), {}
    negative = guides[0].unconditional_context
    return [item for item in processors if item not in guides], {
        "guidance_scale": guides[0].guidance_scale,
        "negative_prompt_ids": negative["input_ids"],
        "negative_prompt_attention_mask": negative["attention_mask"],
    }


def _config(
    config: GenerationConfig, guidance_scale: float | None, heeded: Iterable[str]
) -> GenerationConfig:
    """The configuration with one length each, as transformers has computed both.

    ``heeded`` are fields that transformers has made its processors of.
    """
    fields = {**config.to_dict(), **dict.fromkeys(heeded)}
    # their criterion has come ready-made, and they have healed the prompts
    fields |= {"stop_strings": None, "token_healing": None, "guidance_scale": guidance_scale}
    for new, whole in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
        if fields.get(new) is not None:
            fields[whole] = None
    return GenerationConfig.from_dict(fields)


def _inputs(
    model: "PreTrainedModel", input_ids: Tensor, given: Mapping[str, Any], copies: int
) -> dict[str, Any]:
    """The model's inputs as they were before transformers repeated each prompt."""
    cache = given.get("past_key_values")
    if cache is not None and cache.get_seq_length() > 0:
        message = "past_key_values with contents are not supported by as_custom_generate; leave them out"
        raise UnsupportedArgumentError(message)
    left = {name: value for name, value in given.items() if name not in _MADE_BY_TRANSFORMERS}
    left.pop("past_key_values", None)
    if input_ids.shape[1] > 0:  # else the prompts are embeddings
        left["decoder_input_ids" if model.config.is_encoder_decoder else "input_ids"] = input_ids
    return {name: _first(value, copies) for name, value in left.items() if value is not None}


def _first(value: Any, copies: int) -> Any:
    """One row of each group of copies; an encoder's output holds several tensors."""
    if isinstance(value, Tensor):
        return value[::copies] if value.dim() else value
    if isinstance(value, ModelOutput):
        return type(value)(**{name: _first(item, copies) for name, item in value.items()})
    return value

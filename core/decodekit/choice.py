"""Which strategy a call uses, and what of transformers' arguments is refused."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import GenerationConfig

from decodekit.chain_config import FIELDS, OFF, wrong_values
from decodekit.errors import CapabilityError, ParameterError, UnknownNameError, UnsupportedArgumentError
from decodekit.moved import how_to_get
from decodekit.params import params_of
from decodekit.registry import registry
from decodekit.session import Session
from decodekit.strategy import Strategy

__all__ = [
    "asked_strategy",
    "check_needs",
    "check_vocabulary",
    "default_strategy",
    "refuse_not_yet",
    "refuse_unsampled",
    "refuse_unused",
    "refuse_unused_fields",
    "strategy_pair",
]

_MODES = {
    "greedy_search": "greedy",
    "sample": "sample",
    "beam_search": "beam",
    "beam_sample": "beam",
    "assisted_generation": "assisted",
    "contrastive_search": "contrastive",
    "dola_generation": "dola",
    "group_beam_search": "diverse_beam",
    "constrained_beam_search": "constrained_beam",
}
_NOT_YET: dict[str, tuple[Any, ...]] = {
    "low_memory": (None, False),
    "speculation_type": (None,),
}
"""Fields of the configuration that this version refuses, with the values that ask for nothing."""
_OF_STRATEGIES: dict[str, Any] = {
    "assistant_early_exit": None,
    "assistant_model": None,
    "assistant_tokenizer": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "early_stopping": False,
    "length_penalty": 1.0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "penalty_alpha": None,
    "prompt_lookup_num_tokens": None,
    "use_mtp": False,
}
"""Fields that belong to one strategy or another, with the value that asks for nothing."""


def strategy_pair(strategy: Any) -> tuple[Any, Mapping[str, Any]]:
    """What a caller names as a strategy, and the parameters beside it.

    Raises:
        ParameterError: it is a pair of another form.
    """
    if not isinstance(strategy, (tuple, list)):
        return strategy, {}
    if len(strategy) == 2 and isinstance(strategy[1], Mapping):
        return strategy[0], strategy[1]
    message = (
        f"strategy={strategy!r} is not allowed: it must be a name, a pair (name, {{parameter: value}}), "
        "or a class or an instance of decodekit.Strategy"
    )
    raise ParameterError(message)


def asked_strategy(
    strategy: Any, values: dict[str, Any], objects: Mapping[str, Any], configured: Mapping[str, Any]
) -> Strategy | None:
    """The strategy that the caller named, or None.

    Args:
        strategy: a name, a pair ``(name, {parameter: value})``, a class or an instance.
        values: the keywords; the strategy's own parameters are taken out, but for those that are
            fields of the configuration as well.
        objects: the arguments of generate that only some strategies take: assistant_model.
        configured: the fields that the given configuration or the model's sets.

    Raises:
        ParameterError: a keyword contradicts the strategy, or would have no effect on it.
    """
    if strategy is None:
        return None
    what, given = strategy_pair(strategy)
    cls = registry().entry("strategies", what).cls if isinstance(what, str) else what
    spec = what
    fields = GenerationConfig().to_dict().keys()
    if isinstance(cls, type):
        own = {
            name: values[name] if name in fields else values.pop(name)
            for name in params_of(cls)
            if name in values
        }
        own |= {name: value for name, value in objects.items() if name in params_of(cls)}
        found = {name: value for name, value in configured.items() if name in params_of(cls)}
        spec = (what, {**_checked(cls, {**found, **own}), **given})
    asked: Strategy = registry().resolve("strategies", spec)
    _check_keywords(asked, {**values, **objects})
    for name in params_of(type(asked)).keys() & fields:
        value = getattr(asked, name)
        if values.get(name, value) != value:
            message = (
                f"{name}={values[name]!r} and strategy={asked} contradict each other: leave one of them out"
            )
            raise ParameterError(message)
        if configured.get(name) != value:
            values[name] = value
    if asked.samples and not configured.get("do_sample"):
        values.setdefault("do_sample", True)  # or transformers warns that temperature has no effect
    return asked


def _check_keywords(strategy: Strategy, values: Mapping[str, Any]) -> None:
    if values.get("do_sample") is True and not strategy.samples:
        message = (
            f"do_sample=True and strategy={strategy.NAME!r} contradict each other, "
            f"because {strategy.NAME} never samples: leave one of them out"
        )
        raise ParameterError(message)
    if values.get("do_sample") is False and strategy.samples:
        message = (
            f"do_sample=False and strategy={strategy.NAME!r} contradict each other, "
            f"because {strategy.NAME} samples: leave one of them out"
        )
        raise ParameterError(message)
    takes = params_of(type(strategy))
    for name, nothing in _OF_STRATEGIES.items():
        if values.get(name) not in (None, nothing) and name not in takes:
            message = (
                f"{name}={values[name]!r} would have no effect: the strategy {strategy.NAME!r} has "
                f"no such parameter (it has {', '.join(takes) or 'none'}): leave it out, or choose another"
            )
            raise ParameterError(message)


def default_strategy(
    config: GenerationConfig, mode: str, objects: Mapping[str, Any], *, cold: bool
) -> Strategy:
    """The strategy that transformers would use.

    Args:
        config: the merged configuration.
        mode: transformers' mode for it.
        objects: the arguments of generate that only some strategies take: assistant_model.
        cold: every row has temperature 0.

    Raises:
        UnsupportedArgumentError: the configuration asks for a strategy that is not installed.
        ParameterError: something that drafts is given beside a strategy that does not.
    """
    name = "greedy" if mode == "sample" and cold else _MODES.get(mode, mode)
    try:
        cls = registry().entry("strategies", name).cls
    except UnknownNameError as error:
        advice = how_to_get(mode) or ""
        message = (
            f"the configuration asks for {mode} ({_why(config)}), the strategy {name!r}: {error}\n{advice}"
        )
        raise UnsupportedArgumentError(message) from error
    drafts = {"prompt_lookup_num_tokens": config.prompt_lookup_num_tokens, "use_mtp": config.use_mtp or None}
    for key, value in {**drafts, **objects}.items():
        if value is not None and key not in params_of(cls):
            message = (
                f"{key} would have no effect: the configuration asks for {mode} ({_why(config)}), and the "
                f"strategy {name!r} does not draft: leave one of them out"
            )
            raise ParameterError(message)
    found = {key: getattr(config, key) for key in params_of(cls) if getattr(config, key, None) is not None}
    found |= {key: value for key, value in objects.items() if key in params_of(cls)}
    chosen: Strategy = registry().resolve("strategies", (name, _checked(cls, found)))
    return chosen


def _checked(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords for a strategy; in those of transformers a text is no number, mostly as it is there."""
    infos = params_of(cls)
    return {
        name: value if name in _READ_FROM_TEXT else infos[name].check(value) for name, value in values.items()
    }


_READ_FROM_TEXT = ("num_assistant_tokens", "assistant_confidence_threshold")
"""Numbers that transformers reads from texts, too."""


def _why(config: GenerationConfig) -> str:
    telling = (
        "num_beams",
        "num_beam_groups",
        "penalty_alpha",
        "dola_layers",
        "constraints",
        "force_words_ids",
        "prompt_lookup_num_tokens",
        "use_mtp",
    )
    said = [
        f"{name}={getattr(config, name, None)}"
        for name in telling
        if getattr(config, name, None) not in (None, 1)
    ]
    return ", ".join(said) or f"do_sample={config.do_sample}"


def refuse_not_yet(config: GenerationConfig) -> None:
    """Raise `UnsupportedArgumentError` for a configuration that this version can't honour."""
    for name, nothing in _NOT_YET.items():
        value = getattr(config, name, None)
        if value not in nothing:
            offers = [repr(item) for item in nothing if item not in (None, False, 1)]
            rest = f"; it takes {' or '.join(offers)}" if offers else ""
            message = f"{name}={value!r} is not supported by this version of decodekit{rest}; leave it out"
            raise UnsupportedArgumentError(message)


def refuse_unused(values: Mapping[str, Any], per_row: Mapping[str, Sequence[Any]]) -> None:
    """Raise `ParameterError` for keywords that an explicit chain would leave without effect."""
    given = {**values, **{name: _of_prompts(each) for name, each in per_row.items()}}
    for name in OFF:
        if given.get(name) is not None:
            raise _unused(name, f"{name}={given[name]!r}")


def refuse_unused_fields(config: GenerationConfig | None, own: GenerationConfig, strategy: Strategy) -> None:
    """Raise `ParameterError` for fields that an explicit chain would leave without effect.

    Args:
        config: the given configuration; what it shares with the model's, or with transformers' defaults, was
            hardly asked for by this call.
        own: the model's.
        strategy: may have parameters of these names.
    """
    defaults, takes = own._get_default_generation_params(), params_of(type(strategy))
    for name, off in OFF.items():
        value: Any = getattr(config, name, None)
        value = value.tolist() if hasattr(value, "tolist") else value
        if name not in takes and value not in (None, *off, defaults.get(name), getattr(own, name, None)):
            raise _unused(name, f"{name}={value!r} in generation_config")


def _unused(name: str, shown: str) -> ParameterError:
    processor = "min_new_tokens" if name == "min_length" else "it"
    message = (
        f"processors= is the whole chain, so {shown} would have no effect: "
        f"put {processor} into the list, at its place in the order, or leave processors out"
    )
    return ParameterError(message)


def _of_prompts(values: Sequence[Any]) -> Any:
    """The values of the prompts; of a single one the value itself, which may have been given so."""
    return values[0] if len(values) == 1 else values


def refuse_unsampled(strategy: Strategy, per_row: Mapping[str, Sequence[Any]]) -> None:
    """Raise `ParameterError` for values for each prompt that only matter where tokens are drawn."""
    for field in FIELDS:
        if field.sampling and field.name in per_row and not strategy.samples:
            value = _of_prompts(per_row[field.name])
            message = (
                f"{field.name}={value!r} would have no effect, because {strategy.NAME} draws no tokens: "
                "add do_sample=True, or leave it out"
            )
            wrong = wrong_values(field, per_row[field.name])
            message += f". Besides, {wrong[0]}" if wrong else ""
            raise ParameterError(message)


def check_vocabulary(strategy: Strategy, name: str, model: Any, target: Any) -> None:
    """Raise `ParameterError` when a strategy's further model is none, or has other tokens than the target."""
    if not hasattr(model, "config"):
        message = (
            f"the {name} model of strategy={strategy.NAME!r} is a {type(model).__name__}: it must be a model "
            "of transformers, e.g. from AutoModelForCausalLM.from_pretrained"
        )
        raise ParameterError(message)
    sizes = [each.config.get_text_config().vocab_size for each in (model, target)]
    if sizes[0] != sizes[1]:
        message = (
            f"the {name} model of strategy={strategy.NAME!r} has a vocabulary of {sizes[0]} tokens and the "
            f"model one of {sizes[1]}: choose one of the same family, or give tokenizer= and "
            "assistant_tokenizer= as well"
        )
        raise ParameterError(message)


def check_needs(strategy: Strategy, session: Session) -> None:
    """Raise `CapabilityError` when the model session lacks something that the strategy needs."""
    for need in sorted(strategy.needs - session.offers):
        message = (
            f"strategy={strategy.NAME!r} needs {need.value} of the model session, and that of "
            f"{type(session.model).__name__} has it not: {session.why_not(need)}"
        )
        raise CapabilityError(message)

"""The chain of a generation configuration, in transformers' order."""

import copy
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from transformers import GenerationConfig

from decodekit.chain import Chain
from decodekit.chain_text import is_text, read_chain
from decodekit.errors import ParameterError, UnknownNameError, UnsupportedArgumentError
from decodekit.params import params_of, plain_type
from decodekit.processor import Processor
from decodekit.registry import registry
from decodekit.wrapped import PrefixConstraint, WrappedProcessor

__all__ = [
    "FIELDS",
    "OFF",
    "Field",
    "chain_of",
    "check_lengths",
    "configured",
    "explicit",
    "per_row_values",
    "refuse_rows",
    "rows_of_chains",
    "wrong_values",
]


@attrs.frozen
class Field:
    """A field of the configuration that puts a processor into the chain.

    Attributes:
        name: the field, and the registry's name of the processor, whose first parameter has its value.
        theirs: transformers' class for it; one of that class that the caller passes takes its place.
            (transformers applies both where the field is a sampling one, a temperature twice.)
        off: the value that puts nothing there, beside None.
        sampling: only when tokens are drawn.
        depth: the levels of lists that one value has; with one more there is a value for each prompt.
    """

    name: str
    theirs: str = ""
    off: tuple[Any, ...] = ()
    sampling: bool = False
    depth: int = 0


USER = Field("logits_processor")
PREFIX = Field("prefix_allowed_tokens_fn", "PrefixConstrainedLogitsProcessor")
FIELDS = (
    Field("sequence_bias", "SequenceBiasLogitsProcessor", depth=3),
    Field("encoder_repetition_penalty", "EncoderRepetitionPenaltyLogitsProcessor", (1,)),
    Field("repetition_penalty", "RepetitionPenaltyLogitsProcessor", (1,)),
    Field("no_repeat_ngram_size", "NoRepeatNGramLogitsProcessor", (0,)),
    Field("encoder_no_repeat_ngram_size", "EncoderNoRepeatNGramLogitsProcessor", (0,)),
    Field("bad_words_ids", "NoBadWordsLogitsProcessor", depth=2),
    Field("min_new_tokens", "MinNewTokensLengthLogitsProcessor", (0,)),
    PREFIX,
    Field("forced_bos_token_id", "ForcedBOSTokenLogitsProcessor"),
    Field("forced_eos_token_id", "ForcedEOSTokenLogitsProcessor", depth=1),
    Field("remove_invalid_values", "InfNanRemoveLogitsProcessor", (False,)),
    Field("exponential_decay_length_penalty", "ExponentialDecayLengthPenalty", depth=1),
    Field("suppress_tokens", "SuppressTokensLogitsProcessor", depth=1),
    Field("begin_suppress_tokens", "SuppressTokensAtBeginLogitsProcessor", depth=1),
    USER,
    Field("temperature", "TemperatureLogitsWarper", (1,), sampling=True),
    Field("top_h", "TopHLogitsWarper", sampling=True),
    Field("top_k", "TopKLogitsWarper", (0,), sampling=True),
    Field("top_p", "TopPLogitsWarper", (1,), sampling=True),
    Field("min_p", "MinPLogitsWarper", (0,), sampling=True),
    Field("typical_p", "TypicalLogitsWarper", (1,), sampling=True),
    Field("epsilon_cutoff", "EpsilonLogitsWarper", (0, 1), sampling=True),
    Field("eta_cutoff", "EtaLogitsWarper", (0, 1), sampling=True),
    Field("watermarking_config"),
    Field("renormalize_logits", "LogitNormalization", (False,)),
)
OFF: Mapping[str, tuple[Any, ...]] = {**{field.name: field.off for field in FIELDS}, "min_length": (0,)}
"""Of every argument that only the configuration's chain heeds, the values that ask for nothing."""
WATERMARKS = {"WatermarkingConfig": "kgw", "SynthIDTextWatermarkingConfig": "synthid"}
"""transformers' classes for watermarking_config, and the processors of their parameters."""

Slot = Processor | Sequence[Processor | None]
"""One place of the chain: a processor of all prompts, or one (or none) for each."""


def per_row_values(kwargs: dict[str, Any]) -> dict[str, list[Any]]:
    """Take the fields out of ``kwargs`` that have a value for each prompt: ``temperature=[0.2, 1.0]``."""
    rows: dict[str, list[Any]] = {}
    for field in FIELDS:
        if field in (USER, PREFIX) or field.name not in kwargs:
            continue
        values = _for_each(kwargs[field.name], field.depth)
        if values is not None:
            rows[field.name] = values
            del kwargs[field.name]
    return rows


def _for_each(value: Any, depth: int) -> list[Any] | None:
    """The value of each prompt, when there are lists in more levels than the ``depth`` that one value has."""
    value = _listed(value)
    if not isinstance(value, (list, tuple)):
        return None
    first = next((item for item in value if item is not None), None)
    return list(map(_listed, value)) if isinstance(first, Mapping) or _levels(value) > depth else None


def _listed(value: Any) -> Any:
    """The list, or the number, of an array of torch or numpy."""
    return value.tolist() if hasattr(value, "tolist") else value


def _levels(value: Any) -> int:
    """How many lists stand around the first plain value."""
    value = _listed(value)
    if not isinstance(value, (list, tuple)):
        return 0
    return 1 + _levels(next((item for item in value if item is not None), None))


def _depth(kind: Any) -> int:
    """How many levels of lists a parameter of a type has: 0 for a number, 1 for a tuple of numbers."""
    inner = plain_type(kind)
    if typing.get_origin(inner) is not tuple:
        return 0
    return 1 + max(_depth(item) for item in typing.get_args(inner) if item is not Ellipsis)


def check_lengths(rows: Mapping[str, Sequence[Any]], prompts: int) -> None:
    """Raise `ParameterError` when a parameter has values for another number of prompts."""
    for name, values in rows.items():
        if len(values) != prompts:
            message = (
                f"{name} has {_counted(len(values), 'value')} for {_counted(prompts, 'prompt')}: "
                "give one a prompt, or one for all"
            )
            raise ParameterError(message)


def configured(
    config: GenerationConfig,
    rows: Mapping[str, Sequence[Any]],
    *,
    sampling: bool,
    least: int = 1,
    wrapped: Sequence[Any] = (),
    prefix: PrefixConstraint | None = None,
) -> list[Slot]:
    """The places of the chain that a configuration asks for.

    Args:
        config: the merged configuration.
        rows: values for each prompt, which beat the configuration's.
        sampling: whether the strategy draws tokens.
        least: tokens that every truncation must leave; a search needs one that is not EOS.
        wrapped: the caller's transformers processors; they stand before the sampling fields, and one of
            a class that the configuration brings as well takes its place.
        prefix: the caller's ``prefix_allowed_tokens_fn``.

    Raises:
        UnsupportedArgumentError: a field is active and no installed plugin has its processor.
    """
    values = {field: rows.get(field.name, [getattr(config, field.name, None)]) for field in FIELDS}
    if prefix is not None:
        values[PREFIX] = [prefix]
    active = [
        field
        for field in FIELDS
        if (sampling or not field.sampling) and any(not _is_inactive(field, value) for value in values[field])
    ]
    own = [item if isinstance(item, Processor) else WrappedProcessor(item) for item in wrapped]
    first = {item.describe(): item for item in reversed(own)}
    taken = {field.theirs: first[field.theirs] for field in active if field.theirs in first}
    slots: list[Slot] = []
    for field in FIELDS:
        if field is USER:
            slots += [item for item in own if item is not taken.get(item.describe())]
        elif field in active and field.theirs in taken:
            slots.append(taken[field.theirs])
        elif field in active:
            made = [
                None if _is_inactive(field, value) else _make(field, value, least, config)
                for value in values[field]
            ]
            slots.append(made if field.name in rows else made[0])  # type: ignore[arg-type]  # active: not None
    return slots


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _is_inactive(field: Field, value: Any) -> bool:
    if field.name == "temperature" and value == 0:
        return True  # such a row takes the argmax
    return value is None or any(value == nothing for nothing in field.off)


def wrong_values(field: Field, values: Sequence[Any]) -> list[str]:
    """What is wrong with values of a field, apart from their having no effect, if its processor is here."""
    try:
        first = next(iter(params_of(registry().entry("processors", field.name).cls).values()))
    except UnknownNameError:
        return []
    wrong = []
    for value in values:
        try:
            if not _is_inactive(field, value):
                first.check(value)
        except ParameterError as error:
            wrong.append(str(error))
    return wrong


def _make(field: Field, value: Any, least: int, config: GenerationConfig) -> Processor:
    if isinstance(value, Processor):
        return value
    if field.name == "watermarking_config":
        return _watermark(value)
    try:
        cls = registry().entry("processors", field.name).cls
    except UnknownNameError as error:
        message = f"{field.name}={value!r} needs the processor {field.name!r}: {error}"
        raise UnsupportedArgumentError(message) from error
    first, *others = params_of(cls)
    value = params_of(cls)[first].check(value)  # resolve would read a text as a number
    if field.name == "top_k" and value > 0:
        value = max(value, least)
    known = {"min_tokens_to_keep": least, "forced_bos_token_id": config.forced_bos_token_id}
    given = {first: value} | {name: known[name] for name in others if name in known}
    made: Processor = registry().resolve("processors", (field.name, given))
    return made


def _watermark(value: Any) -> Processor:
    name = "kgw" if isinstance(value, Mapping) else WATERMARKS.get(type(value).__name__)
    if name is None:
        message = (
            f"watermarking_config={value!r} is not supported by this version of decodekit; it takes "
            f"{', '.join(WATERMARKS)} or a dictionary of the first's values"
        )
        raise UnsupportedArgumentError(message)
    values = value if isinstance(value, Mapping) else value.to_dict()
    made: Processor = registry().resolve("processors", (name, values))
    return made


def explicit(specs: Any, prompts: int) -> list[Slot]:
    """The places of a chain that the caller spells out; a parameter may have a value for each prompt.

    ``specs`` is a chain, its text, one processor, or a sequence of processors; or a sequence with a chain
    for each prompt: `Chain` objects, lists of processors, and None for no chain.
    """
    _refuse_short(specs)
    if isinstance(specs, (list, tuple)) and not _is_pair(specs) and any(map(_is_chain, specs)):
        return _chain_of_each(specs, prompts)
    return [_place(spec, prompts) for spec in _spelled_out(specs)]


def _is_pair(spec: Any) -> bool:
    return isinstance(spec, (tuple, list)) and len(spec) == 2 and isinstance(spec[1], Mapping)


def _is_chain(item: Any) -> bool:
    listed = isinstance(item, (list, tuple)) and not (_is_pair(item) or _is_short(item))
    return item is None or isinstance(item, Chain) or listed


def _is_short(spec: Any) -> bool:
    """Whether it is a name and a number, or numbers, which is no pair, and no chain either."""
    named = isinstance(spec, (tuple, list)) and len(spec) == 2 and isinstance(spec[0], str)
    return named and _is_numeric(spec[1])


def _is_numeric(value: Any) -> bool:
    value = value.tolist() if hasattr(value, "tolist") else value  # of numpy and torch
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(map(_is_numeric, value))
    return isinstance(value, (int, float))


def _refuse_short(spec: Any) -> None:
    """Raise `ParameterError` with the pair that is meant by a name and a number."""
    if _is_short(spec):
        name, value = spec
        first = next(iter(params_of(registry().entry("processors", name).cls)), None)
        meant = repr(name) if first is None else repr((name, {first: value}))
        message = f"{spec!r} in processors= is not a processor: write {meant}"
        raise ParameterError(message)


def _spelled_out(specs: Any) -> list[Any]:
    """The processors one by one."""
    _refuse_short(specs)
    if isinstance(specs, Chain):
        return list(specs.processors)
    if is_text(specs) or specs == "none":
        return list(read_chain(specs))
    if specs is None or isinstance(specs, (str, Processor, type)) or _is_pair(specs):
        return [] if specs is None else [specs]
    if not isinstance(specs, Sequence):
        return [specs]
    return [each for spec in specs for each in _spelled_out(spec)]


def _chain_of_each(specs: Sequence[Any], prompts: int) -> list[Slot]:
    other = next((item for item in specs if not (_is_chain(item) or isinstance(item, str))), None)
    if other is not None:
        message = (
            f"processors= holds chains, which are one a prompt, and {other!r} beside them: give a flat list "
            "of processors for all prompts, or a chain for each prompt"
        )
        raise ParameterError(message)
    if len(specs) != prompts:
        message = (
            f"processors= holds {_counted(len(specs), 'chain')} for {_counted(prompts, 'prompt')}: give each "
            "its own, or a flat list of processors for all prompts"
        )
        raise ParameterError(message)
    slots: list[Slot] = []
    for prompt, chain in enumerate(specs):
        for spec in _spelled_out(chain):
            one = _place(spec, 1)
            row: list[Processor | None] = [None] * prompts
            row[prompt] = one[0] if isinstance(one, Sequence) else one
            slots.append(row)
    return slots


def _place(spec: Any, prompts: int) -> Slot:
    if not _is_pair(spec):
        made: Processor = registry().resolve("processors", spec)
        return made
    name, values = spec
    rows = _rows_of(name, values)
    if not rows:
        one: Processor = registry().resolve("processors", spec)
        return one
    check_lengths(rows, prompts)
    return [_for_prompt(name, values, {key: rows[key][prompt] for key in rows}) for prompt in range(prompts)]


def _rows_of(name: Any, values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Of the parameters of a processor those that have a value for each prompt."""
    infos = params_of(registry().entry("processors", name).cls if isinstance(name, str) else name)
    return {
        key: each
        for key, value in values.items()
        if key in infos and (each := _for_each(value, _depth(infos[key].type))) is not None
    }


def refuse_rows(spec: tuple[str, Mapping[str, Any]], text: str) -> None:
    """Raise `ParameterError` where a pair of the chain ``text`` has a value for each prompt."""
    for key, values in _rows_of(*spec).items():
        message = (
            f"{key}={values!r} in the chain {text!r} has one for each prompt, and a Chain is for all: "
            f"give generate the text itself: processors={text!r}"
        )
        raise ParameterError(message)


def _for_prompt(name: Any, values: Mapping[str, Any], own: Mapping[str, Any]) -> Processor | None:
    """The processor of one prompt; none where one of its values is None."""
    if any(value is None for value in own.values()):
        return None
    made: Processor = registry().resolve("processors", (name, {**values, **own}))
    return made


def chain_of(config: GenerationConfig) -> Chain:
    """The chain that a generation configuration asks for, in transformers' order, where it draws tokens.

    What it leaves open has the value that a call would give it, such as top_k=50.
    """
    config = copy.deepcopy(config)
    for name, value in config._get_default_generation_params().items():
        if getattr(config, name, None) is None:
            setattr(config, name, value)
    return Chain([slot for slot in configured(config, {}, sampling=True) if isinstance(slot, Processor)])


def rows_of_chains(slots: Sequence[Slot], prompts: int) -> tuple[list[Chain], list[int]]:
    """The distinct chains, and for each prompt which one is its own."""
    chains: list[Chain] = []
    numbers = []
    for prompt in range(prompts):
        row = [slot[prompt] if isinstance(slot, Sequence) else slot for slot in slots]
        chain = Chain([processor for processor in row if processor is not None])
        if chain not in chains:
            chains.append(chain)
        numbers.append(chains.index(chain))
    return chains, numbers

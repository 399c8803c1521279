"""The prompts of a list as jobs: what each asks for, resolved before anything runs."""

import warnings
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from transformers import GenerationConfig

from decodekit.admission import can_admit
from decodekit.batch_items import Item, read_item
from decodekit.call import Call, Options, prepare
from decodekit.chain import Chain
from decodekit.chain_config import FIELDS, check_lengths, explicit, per_row_values, rows_of_chains
from decodekit.errors import ParameterError
from decodekit.processor import Processor
from decodekit.randomness import prompt_seeds
from decodekit.transformers_hooks import set_fields

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Job", "Kind", "Setup", "read_jobs"]

_LISTS = ("max_new_tokens", "max_length", "min_length", "max_time")
"""Fields that may have a value for each prompt, beside those of the chain."""
_OF_CHAIN = frozenset(field.name for field in FIELDS)
_OWN = {*_LISTS, *_OF_CHAIN, "min_new_tokens", "stop_strings"}
"""Fields in which the rows of one batch may differ."""


@attrs.frozen(eq=False, kw_only=True)
class Setup:
    """What all prompts of a list share.

    Attributes:
        model: the target.
        config: the given generation configuration.
        common: keywords of all prompts.
        options: further options of all prompts.
    """

    model: "PreTrainedModel"
    config: GenerationConfig | None
    common: Mapping[str, Any]
    options: Options

    def prepare(
        self, settings: Mapping[str, Any], chain: Chain | None, prompts: Sequence[list[int]], seeds: list[int]
    ) -> Call:
        """A call of prompts that ask for the same.

        Args:
            settings: their own values; those of the chain in a list of one.
            chain: the whole chain, where it is spelt out.
            prompts: token ids.
            seeds: one a prompt.
        """
        ids, shown = self._padded(prompts), self._padded([[1] * len(row) for row in prompts])
        own = {name: value * len(prompts) if name in _OF_CHAIN else value for name, value in settings.items()}
        given = {**self.common, **own, "input_ids": ids, "attention_mask": shown}
        options = attrs.evolve(self.options, processors=chain, seed=seeds)
        return prepare(self.model, None, self.config, given, options)

    def _padded(self, rows: Sequence[list[int]]) -> Tensor:
        """Rows of one width: a decoder's end together; an encoder may count positions from column 0."""
        width, encoder = max(map(len, rows)), self.model.config.is_encoder_decoder
        pads = [[0] * (width - len(row)) for row in rows]
        padded = [row + pad if encoder else pad + row for row, pad in zip(rows, pads, strict=True)]
        return torch.tensor(padded, device=self.model.device)

    def sets(self, name: str, own: Mapping[str, Any]) -> bool:
        """Whether a field of the configuration has a value from anywhere."""
        places = (own, self.common, set_fields(self.config), set_fields(self.model.generation_config))
        return any(place.get(name) is not None for place in places)


@attrs.frozen(eq=False, slots=False)
class Kind:
    """Prompts that ask for the same.

    Attributes:
        settings: their own values, as `Setup.prepare` takes them.
        chain: their chain, where it is spelt out.
        call: a call of one such prompt, of which everything is read off.
        admits: whether they may join a running batch.
    """

    settings: Mapping[str, Any]
    chain: Chain | None
    call: Call
    admits: bool

    @cached_property
    def _shared(self) -> dict[str, Any]:
        values: dict[str, Any] = self.call.request.config.to_dict()
        return {
            name: value.tolist() if isinstance(value, Tensor) else value
            for name, value in values.items()
            if name not in _OWN and not name.startswith("_")  # transformers' own notes of the others
        }

    def mixes_with(self, other: "Kind") -> bool:
        """Whether the prompts of both can stand in one batch."""
        if not (self.admits and other.admits):
            return self is other
        return self.call.strategy == other.call.strategy and self._shared == other._shared


@attrs.frozen(eq=False)
class Job:
    """A prompt that waits, or is being decoded.

    Attributes:
        index: its place in the list.
        item: what was read.
        kind: what it asks for.
        seed: what its draws come from; None when nothing is drawn.
    """

    index: int
    item: Item
    kind: Kind
    seed: int | None

    @property
    def size(self) -> int:
        """The most tokens that it will have, the prompt included."""
        return len(self.item.ids) + self.kind.call.request.max_new_tokens


@attrs.frozen(eq=False)
class _Kinds:
    """The kinds that were met so far."""

    setup: Setup
    _found: dict[Hashable, Kind] = attrs.field(factory=dict)
    _chains: list[tuple[Any, Chain]] = attrs.field(factory=list)

    def of(self, values: Mapping[str, Any], chain: Chain | None, ids: list[int]) -> Kind:
        """The kind of a prompt with these values of its own."""
        setup = self.setup
        width = len(ids) if any(setup.sets(name, values) for name in ("max_length", "min_length")) else 0
        key = (_frozen(values), id(chain), width)
        if key not in self._found:
            settings = {name: [value] if name in _OF_CHAIN else value for name, value in values.items()}
            call = setup.prepare(settings, chain, [ids], [0])
            call.chains = [self._known(call, bound) for bound in call.chains]
            self._found[key] = Kind(settings, chain, call, can_admit(setup.model, call))
        return self._found[key]

    def _known(self, call: Call, chain: Chain) -> Chain:
        """The chain of other prompts that is the same, so that their rows go through it together."""
        request = call.request
        binds = any(type(item).bind is not Processor.bind for item in chain.processors)
        bound_to = (request.max_new_tokens, request.eos_token_ids, request.pad_token_id) if binds else None
        for place, known in self._chains:
            if place == bound_to and known == chain:
                return known
        self._chains.append((bound_to, chain))
        return chain


def _frozen(value: Any) -> Hashable:
    """Equal for values that are the same, types included; what can't be hashed is the same as itself."""
    if isinstance(value, Mapping):
        return "mapping", frozenset((_frozen(key), _frozen(own)) for key, own in value.items())
    value = value.tolist() if isinstance(value, Tensor) else value
    if isinstance(value, (list, tuple)):
        return "list", tuple(map(_frozen, value))
    try:
        hash(value)
    except TypeError:
        return type(value), id(value)
    return type(value), value


def read_jobs(
    setup: Setup,
    prompts: Sequence[Any],
    known: Collection[str],
    processors: Any,
    seed: Any,
    fail: Callable[[int, Item | None, Exception], None],
) -> list[Job]:
    """Read a list of prompts.

    Args:
        setup: what they share; lists with a value for each prompt are taken out of its ``common``.
        prompts: see `read_item`.
        known: names of values that a prompt may have of its own.
        processors: the chain of all, or of each.
        seed: one for all, a list with one for each, or None.
        fail: told of each prompt that can't be read, by its place, and why.

    Raises:
        ParameterError: a value is not allowed, and it is no prompt's own; and what `prepare` raises.
    """
    count, common = len(prompts), dict(setup.common)
    lists = per_row_values(common)
    lists |= {name: list(common.pop(name)) for name in _LISTS if isinstance(common.get(name), (list, tuple))}
    check_lengths(lists, count)
    seeds = prompt_seeds(seed, count) if seed is not None else [None] * count
    slots = explicit(processors, count) if processors is not None else None
    chains, numbers = rows_of_chains(slots, count) if slots is not None else ([None], [0] * count)
    kinds = _Kinds(attrs.evolve(setup, common=common))
    if chains:
        _try_common(kinds.setup, chains)
    jobs = []
    for index, prompt in enumerate(prompts):
        chain, values = chains[numbers[index]], {name: given[index] for name, given in lists.items()}
        item = None
        try:
            item = read_item(prompt, setup.options.tokenizer, known)
            _check_tokens(setup.model, item.ids)
            kind = kinds.of({**values, **item.settings}, chain, item.ids)
        except Exception as error:  # transformers and tokenizers have errors of their own
            fail(index, item, error)
            continue
        own = item.seed if item.seed is not None else seeds[index]
        drawn = int(torch.randint(2**62, ())) if own is None and kind.call.strategy.samples else own
        jobs.append(Job(index, item, kind, drawn if kind.call.strategy.samples else None))
    return jobs


def _try_common(setup: Setup, chains: Sequence[Chain | None]) -> None:
    """Raise what is wrong with all prompts, and so the fault of none: one of a single token has it too."""
    chain = chains[0] if len(chains) == 1 else Chain([])
    with warnings.catch_warnings(action="ignore"):  # the prompts themselves are warned of
        setup.prepare({}, chain, [[0]], [0])


def _check_tokens(model: "PreTrainedModel", ids: list[int]) -> None:
    vocab_size = model.config.get_text_config().vocab_size
    if not 0 <= min(ids) <= max(ids) < vocab_size:
        message = (
            f"the prompt holds ids from {min(ids)} to {max(ids)}: they must be in [0, {vocab_size}), the "
            "model's vocabulary; use the tokenizer that belongs to the model"
        )
        raise ParameterError(message)
    most = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if most and not model.config.is_encoder_decoder and len(ids) >= most:
        message = (
            f"the prompt has {len(ids)} tokens, and {type(model).__name__} has {most} positions, of "
            "which a new token needs one: shorten it"
        )
        raise ParameterError(message)

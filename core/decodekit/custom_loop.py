"""Decoding loops that are not ours: functions and repositories of transformers' ``custom_generate``.

A function is run by transformers' own ``generate``, so that it gets exactly the inputs, processors and
criteria that it would get there. What transformers drops on the way is handed over here: every argument
that the function's signature names, stop strings, and a streamer of a function that knows none.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.generation.stopping_criteria import StoppingCriteriaList, StopStringCriteria

from decodekit.errors import (
    MissingLibraryError,
    ModelNotFoundError,
    ParameterError,
    TrustError,
    UnknownNameError,
    UnsupportedArgumentError,
)
from decodekit.moved import how_to_get
from decodekit.requirements import missing_requirements
from decodekit.trust import check_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["CustomFunction", "CustomLoop", "CustomRepo"]

THEIRS = GenerationMixin.generate  # what `drop_in` replaces for a while
_HANDED = ("streamer", "tokenizer", "assistant_model", "assistant_tokenizer", "synced_gpus")
"""What transformers takes and does not give to a function, whatever its signature names."""
_STANDARD = ("model", "input_ids", "logits_processor", "stopping_criteria", "generation_config")
_HUB = ("revision", "token", "cache_dir", "force_download", "proxies", "local_files_only", "subfolder")
_CODE = "custom_generate/generate.py"


class CustomLoop:
    """What runs in the place of our own loop."""

    def run(self, model: "PreTrainedModel", arguments: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Any:
        """Decode; returns whatever the foreign code returns.

        Args:
            model: the model.
            arguments: the named arguments of generate, None where nothing was given.
            kwargs: its further keywords.
        """
        raise TypeError


@attrs.frozen(eq=False)
class CustomFunction(CustomLoop):
    """``function(model, input_ids, logits_processor=, stopping_criteria=, generation_config=, **more)``."""

    function: Callable[..., Any]

    def run(self, model: "PreTrainedModel", arguments: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Any:
        """Let transformers prepare the call and hand it to the function, with all that the function names.

        Raises:
            ParameterError: the function has another signature, or lacks a required argument.
            UnsupportedArgumentError: an argument that the function does not take, or our loop's alone.
        """
        signature = self._signature()
        given = {name: value for name, value in {**arguments, **kwargs}.items() if value is not None}
        given.pop("custom_generate", None)
        streamer = given.get("streamer")
        with _told(streamer, "streamer" in signature) as tell:
            _refuse_ours(
                {name: given[name] for name in given if name not in signature}, "a custom_generate function"
            )
            self._refuse_unnamed(signature, given)
            handed = _handed(model, given)
            prepared = {*_STANDARD, *inspect.signature(model.forward).parameters}
            own = {name: given[name] for name in signature if name in given and name not in prepared}
            own |= {name: value for name, value in handed.items() if name in signature}
            self._check_required(signature, own, prepared)
            theirs = {*GenerationConfig().to_dict(), *inspect.signature(THEIRS).parameters} - handed.keys()
            values = {name: given[name] for name in given if name in theirs or name not in own | handed}
            values |= {"streamer": streamer} if streamer is not None else {}  # it gets the prompt there
            stops = _take_stop_strings(model, values, given.get("tokenizer"))
            loop = self._prepared(signature, own, stops, tell)
            return THEIRS(model, **values, custom_generate=loop)

    def _signature(self) -> Mapping[str, inspect.Parameter]:
        try:
            parameters = inspect.signature(self.function).parameters
        except (TypeError, ValueError) as error:
            message = f"custom_generate={self.function!r} has no signature to read: wrap it in a function"
            raise ParameterError(message) from error
        names = list(parameters)
        open_ended = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
        missing = [name for name in _STANDARD[1:] if name not in parameters and not open_ended]
        if len(names) < 2 or names[1] != "input_ids" or missing:
            message = (
                f"custom_generate={_name(self.function)}({', '.join(names)}) is not allowed: it must take "
                "(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs), "
                "and further arguments of its own"
            )
            raise ParameterError(message)
        return parameters

    def _refuse_unnamed(self, signature: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        for name in ("assistant_model", "assistant_tokenizer", "synced_gpus"):
            if given.get(name) and name not in signature:
                message = (
                    f"{name} would have no effect: {_name(self.function)} does not name it in its signature"
                )
                raise UnsupportedArgumentError(message)

    def _check_required(
        self, signature: Mapping[str, inspect.Parameter], own: Mapping[str, Any], prepared: set[str]
    ) -> None:
        """Before the first forward pass, as the function itself would only say it after the prompt."""
        prepared = {*prepared, "inputs_tensor", next(iter(signature))}
        for name, item in signature.items():
            bound = item.kind in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
            if item.default is item.empty and not bound and name not in prepared and name not in own:
                message = f"custom_generate={_name(self.function)} needs {name}=: pass it to generate"
                raise ParameterError(message)

    def _prepared(
        self,
        signature: Mapping[str, inspect.Parameter],
        own: Mapping[str, Any],
        stops: "_StopStrings | None",
        tell: Callable[[Any, Tensor], None],
    ) -> Callable[..., Any]:
        """The function as transformers calls it; its signature is that which transformers reads."""
        open_ended = any(item.kind is item.VAR_KEYWORD for item in signature.values())

        def prepared(model: Any, input_ids: Tensor, **more: Any) -> Any:
            if stops is not None:
                more["generation_config"].stop_strings = stops.texts
                more["stopping_criteria"].append(stops.criterion)
            more |= own
            named = more if open_ended else {name: more[name] for name in more if name in signature}
            result = self.function(model, input_ids, **named)
            tell(result, input_ids)
            return result

        names = ["model", "input_ids", *(name for name in signature if name == "inputs_tensor")]
        kinds = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        more = inspect.Parameter("model_kwargs", inspect.Parameter.VAR_KEYWORD)
        prepared.__signature__ = inspect.Signature([*kinds, more])  # type: ignore[attr-defined]  # functions have one
        return prepared


@attrs.frozen(eq=False)
class CustomRepo(CustomLoop):
    """A folder or a hub repository with ``custom_generate/generate.py``, which has ``generate(model, ...)``.

    Raises:
        UnknownNameError: there is no such folder, or not this file in it.
        TrustError: its code may not run.
        MissingLibraryError: its ``custom_generate/requirements.txt`` names what is not installed.
    """

    name: str
    trusted: bool | None = attrs.field()

    @trusted.validator
    def _check(self, attribute: Any, value: bool | None) -> None:
        folder = Path(self.name).expanduser()
        local = folder.is_dir()
        if local and not (folder / _CODE).is_file():
            message = f"custom_generate={self.name!r}: the folder has no file {_CODE}"
            raise UnknownNameError(message)
        advice = how_to_get(self.name)
        if not local and (folder.is_absolute() or self.name.count("/") > 1 or self.name[0] in "./~"):
            message = f"custom_generate={self.name!r}: there is no such folder"
            raise UnknownNameError(message)
        if value is not True:
            message = (
                f"custom_generate={self.name!r} runs Python code that is not part of decodekit: read "
                f"{folder / _CODE if local else f'https://hf.co/{self.name}'}, then pass "
                f"trust_remote_code=True.{' ' + advice if advice else ''}"
            )
            raise TrustError(message)
        check_folder(self.name, folder / "custom_generate" if local else None)
        if local:
            self._check_requirements(folder / "custom_generate" / "requirements.txt")

    def _check_requirements(self, file: Path) -> None:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        missing = missing_requirements(lines)
        if missing:
            quoted = " ".join(f"'{line}'" for line in missing)
            message = f"custom_generate={self.name!r} needs what is not installed: pip install {quoted}"
            raise MissingLibraryError(message)

    def run(self, model: "PreTrainedModel", arguments: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Any:
        """Call its ``generate`` with everything that generate was given; it prepares its inputs itself.

        Raises:
            UnsupportedArgumentError: an argument that only our own loop knows.
            ModelNotFoundError: the repository is neither in the local cache nor could it be fetched.
        """
        _refuse_ours({**arguments, **kwargs}, "a custom_generate repository")
        hub = {name: kwargs[name] for name in _HUB if name in kwargs}
        try:
            function = model.load_custom_generate(self.name, trust_remote_code=True, **hub)
        except (OSError, ValueError) as error:
            message = (
                f"custom_generate={self.name!r} can't be fetched: {error}\nCheck name and connection, or "
                "download the repository elsewhere and pass the path of its folder"
            )
            raise ModelNotFoundError(message) from error
        values = {name: value for name, value in arguments.items() if name not in _KEPT}
        values |= {name: value for name, value in kwargs.items() if name not in hub}
        parameters = inspect.signature(function).parameters
        if not any(item.kind is item.VAR_KEYWORD for item in parameters.values()):
            values = {
                name: value for name, value in values.items() if value is not None or name in parameters
            }
        return function(model=model, **values)


@attrs.frozen(eq=False)
class _StopStrings:
    texts: list[str]
    criterion: StopStringCriteria


_OURS = {
    "strategy": "it decides itself how to decode",
    "processors": "it gets transformers' logits_processor: pass "
    "logits_processor=[decodekit.adapters.to_transformers(processor)]",
    "seed": "it draws as it likes: call torch.manual_seed before",
    "compile": "it runs the model as it is",
}


_KEPT = {*_OURS, "custom_generate"}
"""Arguments that foreign code does not get."""


def _refuse_ours(given: Mapping[str, Any], who: str) -> None:
    for name, why in _OURS.items():
        if given.get(name) is not None:
            message = f"{name}= has no effect on {who}, because {why}"
            raise UnsupportedArgumentError(message)


def _handed(model: "PreTrainedModel", given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that transformers keeps to itself; synced_gpus with the default that it would find."""
    handed = {name: given.get(name) for name in _HANDED}
    if handed["synced_gpus"] is None:
        from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
        from transformers.integrations.fsdp import is_fsdp_managed_module

        many = torch.distributed.is_available() and torch.distributed.is_initialized()
        sharded = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(model)
        handed["synced_gpus"] = bool(sharded and many and torch.distributed.get_world_size() > 1)
    return handed


def _take_stop_strings(
    model: "PreTrainedModel", values: dict[str, Any], tokenizer: Any
) -> _StopStrings | None:
    """Make the criterion of the stop strings, for which transformers would not find the tokenizer."""
    config = values.get("generation_config")
    texts = values.pop("stop_strings", None) or getattr(config, "stop_strings", None)
    texts = texts or model.generation_config.stop_strings
    if not texts:
        return None
    if tokenizer is None:
        message = f"stop_strings={texts!r} needs the tokenizer: pass tokenizer="
        raise ParameterError(message)
    if config is not None:
        values["generation_config"] = GenerationConfig.from_dict({**config.to_dict(), "stop_strings": None})
    texts = [texts] if isinstance(texts, str) else list(texts)
    values["stopping_criteria"] = StoppingCriteriaList(values.get("stopping_criteria") or ())
    return _StopStrings(texts, StopStringCriteria(tokenizer=tokenizer, stop_strings=texts))


@contextlib.contextmanager
def _told(streamer: Any, is_named: bool) -> Iterator[Callable[[Any, Tensor], None]]:
    """Tell a streamer what a function returned that names none, and end it.

    A function that names it puts and ends on its own, unless it fails.
    """

    def tell(result: Any, input_ids: Tensor) -> None:
        sequences = getattr(result, "sequences", result)
        if streamer is not None and not is_named and isinstance(sequences, Tensor):
            for column in sequences[:, input_ids.shape[1] :].unbind(dim=1):
                streamer.put(column.cpu())

    done = False
    try:
        yield tell
        done = True
    finally:
        if streamer is not None and not (is_named and done):
            streamer.end()


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)

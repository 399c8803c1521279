"""A processor for vLLM: a class for the V1 sampler and one for the new model runner.

Both are opt-in twice: the engine is given the class (``LLM(logits_processors=[...])``), and a request names
it in ``SamplingParams(extra_args={NAME: True})`` or with parameters, ``{NAME: {"min_p": 0.1}}``. Nothing is
registered in vLLM's entry-point group, whose members are loaded into every engine of an environment.
"""

from typing import Any

import torch
from torch import Tensor

from decodekit.adapters.rows import Rows
from decodekit.contract import check_class
from decodekit.errors import MissingLibraryError, ParameterError
from decodekit.params import build
from decodekit.processor import CallContext, Processor
from decodekit.registry import registry

__all__ = ["to_vllm_v1", "to_vllm_v2"]


def to_vllm_v1(processor: Any) -> type[Any]:
    """Make a subclass of ``vllm.v1.sample.logits_processor.LogitsProcessor``.

    Args:
        processor: a name or a class; its parameters come with each request.

    Raises:
        MissingLibraryError: vLLM, or this interface of it, is not installed.
        UnknownNameError, PluginError, ParameterError: it is no processor.
    """
    cls = _class_of(processor)
    base, moves = _import("vllm.v1.sample.logits_processor", "LogitsProcessor", "MoveDirectionality")

    class VllmV1(base):  # type: ignore[misc, valid-type]  # made when it is asked for
        """One processor of decodekit for the requests that name it."""

        def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
            self._requests: dict[int, _Request] = {}

        @classmethod
        def validate_params(cls_, sampling_params: Any) -> None:  # noqa: N804  # cls is the processor
            """Refuse wrong parameters as the request comes in."""
            _rows_of(cls, sampling_params)

        def is_argmax_invariant(self) -> bool:
            """What the processor declares, and the conformance kit has checked."""
            return cls.LAWS.keeps_argmax

        def update_state(self, batch_update: Any) -> None:
            """Follow the requests through removals, additions and moves, in this order."""
            if batch_update is None:
                return
            for index in batch_update.removed:
                self._requests.pop(index, None)
            for index, params, prompt, output in batch_update.added:
                self._requests.pop(index, None)
                rows = _rows_of(cls, params)
                if rows is not None:
                    self._requests[index] = _Request(rows, list(prompt or ()), output)
            for one, other, direction in batch_update.moved:
                first, second = self._requests.pop(one, None), self._requests.pop(other, None)
                if first is not None:
                    self._requests[other] = first
                if second is not None and direction == moves.SWAP:
                    self._requests[one] = second

        def apply(self, logits: Tensor) -> Tensor:
            """Process the rows of the requests that named it, in place, as vLLM likes it."""
            for index, request in self._requests.items():
                tokens = [*request.prompt, *request.output]
                logits[index] = request.rows(logits[[index]], [tokens], [len(request.prompt)])[0]
            return logits

    return _named(VllmV1, cls, "V1")


def to_vllm_v2(processor: Any) -> type[Any]:
    """Make a subclass of ``vllm.v1.worker.gpu.sample.logits_processor.LogitsProcessor``.

    It works under speculation: a drafted row sees the drafted tokens before it.

    Args:
        processor: a name or a class; its parameters come with each request.

    Raises:
        MissingLibraryError: vLLM, or this interface of it, is not installed.
        UnknownNameError, PluginError, ParameterError: it is no processor.
    """
    cls = _class_of(processor)
    (base,) = _import("vllm.v1.worker.gpu.sample.logits_processor", "LogitsProcessor")

    class VllmV2(base):  # type: ignore[misc, valid-type]  # made when it is asked for
        """One processor of decodekit for the requests that name it."""

        def __init__(self, vllm_config: Any, req_states: Any) -> None:
            self._states = req_states
            self._rows: dict[int, Rows] = {}

        @classmethod
        def validate_params(cls_, sampling_params: Any) -> None:  # noqa: N804  # cls is the processor
            """Refuse wrong parameters as the request comes in."""
            _rows_of(cls, sampling_params)

        def add_request(self, req_idx: int, sampling_params: Any) -> bool:
            """Take a slot over; whether the request named the processor."""
            self._rows.pop(req_idx, None)
            rows = _rows_of(cls, sampling_params)
            if rows is not None:
                self._rows[req_idx] = rows
            return rows is not None

        def apply(self, logits: Tensor, ctx: Any) -> Tensor:
            """Process the rows of the requests that named it, in place, as vLLM likes it."""
            slots, offsets = ctx.expanded_idx_mapping.tolist(), ctx.expanded_local_pos.tolist()
            fed = ctx.input_ids.tolist()
            for slot in sorted(set(slots) & self._rows.keys()):
                own = sorted((offsets[row], row) for row, of in enumerate(slots) if of == slot)
                places = [row for _, row in own]
                length = int(_tensor(self._states.total_len)[slot])
                committed = _tensor(self._states.all_token_ids)[slot, :length].tolist()
                drafts = [fed[row] for _, row in own[1:]]  # the first row was fed the last committed token
                tokens = [committed + drafts[:count] for count in range(len(own))]
                prompt = int(_tensor(self._states.prompt_len)[slot])
                logits[places] = self._rows[slot](logits[places], tokens, [prompt] * len(own))
            return logits

    return _named(VllmV2, cls, "V2")


class _Request:
    """A request of the V1 sampler; ``output`` is vLLM's own list, which grows."""

    def __init__(self, rows: Rows, prompt: list[int], output: list[int]) -> None:
        self.rows, self.prompt, self.output = rows, prompt, output


def _class_of(processor: Any) -> type[Processor]:
    if isinstance(processor, str):
        cls: type[Processor] = registry().entry("processors", processor).cls
        return cls
    if isinstance(processor, type):
        checked: type[Processor] = check_class("processors", processor)
        return checked
    message = (
        f"{processor!r} is not allowed: give the name or the class, as parameters come with each request"
    )
    raise ParameterError(message)


def _rows_of(cls: type[Processor], params: Any) -> Rows | None:
    """The processor of a request with its parameters; None when the request does not name it.

    Raises:
        ParameterError: a parameter is unknown, or not allowed.
    """
    asked = (getattr(params, "extra_args", None) or {}).get(cls.NAME, False)
    if asked is False or asked is None:
        return None
    if asked is not True and not isinstance(asked, dict):
        message = (
            f"extra_args[{cls.NAME!r}]={asked!r} is not allowed: it must be True or {{parameter: value}}"
        )
        raise ParameterError(message)
    made: Processor = build(cls, {} if asked is True else asked)
    ends = getattr(params, "all_stop_token_ids", None) or getattr(params, "stop_token_ids", None) or ()
    context = CallContext(
        vocab_size=0,
        eos_token_ids=tuple(sorted(ends)),
        max_new_tokens=getattr(params, "max_tokens", None),
    )
    return Rows(made, context)


def _import(module: str, *names: str) -> tuple[Any, ...]:
    import importlib

    try:
        found = importlib.import_module(module)
        return tuple(getattr(found, name) for name in names)
    except (ImportError, AttributeError) as error:
        message = (
            f"this adapter needs {module} of vLLM, which is not here ({error}): pip install vllm, or "
            "take the other one of to_vllm_v1 and to_vllm_v2"
        )
        raise MissingLibraryError(message) from error


def _tensor(buffer: Any) -> Tensor:
    """The tensor behind one of vLLM's buffers, which has had two names."""
    for name in ("gpu", "device_tensor"):
        found = getattr(buffer, name, None)
        if isinstance(found, Tensor):
            return found
    return torch.as_tensor(buffer)


def _named(made: type[Any], cls: type[Processor], suffix: str) -> type[Any]:
    made.__name__ = made.__qualname__ = f"{cls.__name__}Vllm{suffix}"
    return made

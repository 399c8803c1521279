"""Counter-examples as code: what a check drew, written so that it can be pasted into a test file."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch

from decodekit.drafter import Drafter
from decodekit.errors import UnknownNameError, nearest
from decodekit.history import History
from decodekit.params import ParamInfo
from decodekit.processor import CallContext, Processor
from decodekit.strategy import Strategy
from decodekit.testing import processor_subject, strategy_case, strategy_toys
from decodekit.testing.strategy_models import model_named

__all__ = ["as_code", "as_test", "processor_case", "replay_values", "strategy_case_of"]

_KNOWN = (bool, int, float, str, type(None))


def processor_case(
    processor: Processor,
    *,
    logits: Sequence[Sequence[float]],
    dtype: str,
    tokens: Sequence[Sequence[int]],
    pads: Sequence[int],
    prompt_lengths: Sequence[int],
    eos_token_ids: Sequence[int] = (),
    max_new_tokens: int | None = None,
    vocab_size: int | None = None,
) -> processor_subject.Case:
    """One call of a processor: B rows of logits, and the history in the form of `History`.

    Args:
        processor: before `bind`.
        logits: B rows of V numbers.
        dtype: of the logits, e.g. ``"float64"``.
        tokens: B rows of ids; the first ``pads[r]`` columns of a row are padding.
        pads: B numbers.
        prompt_lengths: B numbers: how many of a row's tokens are its prompt.
        eos_token_ids: the EOS ids of the call.
        max_new_tokens: the most tokens that a row may get.
        vocab_size: V unless given.
    """
    width = len(logits[0]) if vocab_size is None else vocab_size
    context = CallContext(vocab_size=width, eos_token_ids=tuple(eos_token_ids), max_new_tokens=max_new_tokens)
    history = History(
        torch.tensor(tokens, dtype=torch.long).view(len(pads), -1),
        torch.tensor(pads, dtype=torch.long),
        torch.tensor(prompt_lengths, dtype=torch.long),
    )
    values = torch.tensor(logits, dtype=getattr(torch, dtype))
    return processor_subject.Case(processor, context, values, history)


def strategy_case_of(strategy: Strategy, *, model: str, **fields: Any) -> strategy_case.Case:
    """One call of generate with a strategy.

    Args:
        strategy: the instance.
        model: one of the kit's, in the words of a report: ``"Markov of order 1, 2 tokens, seed 7"``.
        **fields: the other fields of a case: prompts, seeds, max_new_tokens, eos, pad, more_padding,
            processors, copies.
    """
    return strategy_case.Case(strategy=strategy, model=model_named(model), **fields)


def replay_values(checks: Iterable[Any], subject: Any, key: str, values: Sequence[Any]) -> None:
    """Run one check on values that it drew once.

    Raises:
        BrokenPromiseError: the promise is still broken.
        UnknownNameError: there is no check of that id and title.
    """
    known = {item.key: item for item in checks}
    if key not in known:
        message = f"there is no check {key!r}.{nearest(key, known)}"
        raise UnknownNameError(message)
    left = list(values)
    known[key].body(subject, lambda strategy: left.pop(0))


def as_code(value: Any, cls: type) -> str | None:
    """A drawn value as an expression; None when there is none for it."""
    if isinstance(value, processor_subject.Case):
        return _processor_case(value)
    if isinstance(value, strategy_case.Case):
        return _strategy_case(value) if isinstance(value.strategy, cls) else None  # else it wraps a drafter
    if isinstance(value, ParamInfo):
        return f"params_of({cls.__name__})[{value.name!r}]"
    if isinstance(value, (Processor, Strategy, *_KNOWN)):
        return repr(value)
    if isinstance(value, Drafter):
        return repr(value) if " object at " not in repr(value) else None
    if isinstance(value, (list, tuple)):
        parts = [as_code(item, cls) for item in value]
        return None if None in parts else f"[{', '.join(map(str, parts))}]"
    return None


def as_test(key: str, cls: type, drawn: Sequence[str | None], promise: str) -> str | None:
    """A test that fails as the check did; None when something that was drawn can't be written down."""
    if None in drawn:
        return None
    values = "\n".join(textwrap.indent(f"{line},", " " * 12) for line in map(str, drawn))
    others = sorted({name for name in re.findall(r"\b([A-Z]\w*)\(", values) if name != cls.__name__})
    helpers = [name for name in ("processor_case", "strategy_case_of") if f"{name}(" in values]
    numbers = sorted({*re.findall(r"\b(?:inf|nan)\b", values)})
    lines = [f"from math import {', '.join(numbers)}", ""] if numbers else []
    lines += ["from decodekit import params_of"] if "params_of(" in values else []
    lines += [f"from decodekit.testing import {', '.join([*helpers, 'replay'])}"]
    toys = [name for name in others if hasattr(strategy_toys, name)]
    lines += [f"from decodekit.testing.strategy_toys import {', '.join(toys)}"] if toys else []
    own = f"from {cls.__module__} import {cls.__name__}"
    lines += [own if "<locals>" not in cls.__qualname__ else f"# {cls.__name__}: the class under test"]
    name = re.sub(r"\W+", "_", key.lower())
    body = [
        "",
        "",
        f"def test_{name}():",
        f'    """{promise}"""',
        "    replay(",
        f"        {key!r},",
        f"        {cls.__name__},",
        "        [",
        values,
        "        ],",
        "    )",
    ]
    return "\n".join([*lines, *body])


def _processor_case(case: processor_subject.Case) -> str:
    history, context = case.history, case.context
    fields: dict[str, Any] = {
        "logits": case.logits.tolist(),
        "dtype": str(case.logits.dtype).removeprefix("torch."),
        "tokens": history.tokens.tolist(),
        "pads": history.pads.tolist(),
        "prompt_lengths": history.prompt_lengths.tolist(),
        "eos_token_ids": context.eos_token_ids,
        "max_new_tokens": context.max_new_tokens,
    }
    if context.vocab_size != case.logits.shape[-1]:
        fields["vocab_size"] = context.vocab_size
    return _call("processor_case", case.processor, fields)


def _strategy_case(case: strategy_case.Case) -> str:
    kept = (item.name for item in attrs.fields(strategy_case.Case) if item.name not in ("strategy", "model"))
    fields = {name: getattr(case, name) for name in kept}
    return _call("strategy_case_of", case.strategy, {"model": str(case.model), **fields})


def _call(function: str, first: Any, fields: Mapping[str, Any]) -> str:
    lines = [repr(first), *(f"{name}={value!r}" for name, value in fields.items())]
    return "\n".join([f"{function}(", *(f"    {line}," for line in lines), ")"])

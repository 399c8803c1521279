"""Counter-examples as code: what a check drew, written so that it can be pasted into a test file."""

import enum
import inspect
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from decodekit.params import ParamInfo
from decodekit.testing import processor_subject, strategy_case
from decodekit.testing.drafter_subject import Verify
from decodekit.testing.strategy_models import is_named

__all__ = ["Writer"]

_OPTIONS = ("oracle", "accepts", "target", "tokenizer")
"""What a subject may have beside its class or instance, by the names that `replay` takes."""
_HELPERS = ("drafter_case_of", "processor_case", "replay", "strategy_case_of")


class Writer:
    """Writes the values that one check draws from one plugin.

    Classes and functions are imported where they are; an object that can't be written down is imported by
    the name that a module has for it, and otherwise left to the reader to fill in.
    """

    def __init__(self, subject: Any) -> None:
        self._cls: type = getattr(subject, "cls", type(subject))
        self._fixed = getattr(subject, "fixed", None)
        self._options = {name: getattr(subject, name, None) for name in _OPTIONS}
        self._imports: dict[str, str] = {}
        self._given: dict[int, tuple[str, Any]] = {}

    def code(self, value: Any) -> str:
        """The value as an expression."""
        if value is self._fixed and value is not None:
            return "plugin"
        if isinstance(value, processor_subject.Case):
            return self._processor_case(value)
        if isinstance(value, strategy_case.Case):
            return self._strategy_case(value)
        if isinstance(value, ParamInfo):
            self._imports["params_of"] = "decodekit"
            return f"params_of({self._named(self._cls)})[{value.name!r}]"
        return self._plain(value)

    def test(self, key: str, values: Sequence[str], promise: str) -> str:
        """A test that fails as the check did."""
        options = {name: self._plain(value) for name, value in self._options.items() if value is not None}
        cls = self._named(self._cls)
        own = self._instance(self._fixed) if self._fixed is not None else None
        call = [repr(key), "plugin" if own else cls]
        call.append("\n".join(["[", *(textwrap.indent(f"{line},", "    ") for line in values), "]"]))
        call += [f"{name}={value}" for name, value in options.items()]
        body = [f'"""{promise}"""', *([f"plugin = {own}"] if own else []), "replay("]
        body += [textwrap.indent(f"{argument},", "    ") for argument in call] + [")"]
        name = re.sub(r"\W+", "_", key.lower())
        text = "\n".join([f"def test_{name}():", textwrap.indent("\n".join(body), "    ")])
        return self._with_head(text)

    def _with_head(self, text: str) -> str:
        """The code with what it needs before it."""
        numbers = sorted({*re.findall(r"\b(?:inf|nan)\b", text)})
        imports = {name: module for name, module in self._imports.items() if re.search(rf"\b{name}\b", text)}
        imports |= {name: "decodekit.testing" for name in _HELPERS if f"{name}(" in text}
        left = []
        for name, value in self._given.values():
            if not re.search(rf"\b{name}\b", text):
                continue
            found = _global(value)
            if found is None:
                left.append(f"{name} = ...  # put here the {type(value).__name__} that was given")
            else:
                module, known = found
                imports[known] = module
                text = re.sub(rf"\b{name}\b", known, text)
        lines = [f"from math import {', '.join(numbers)}"] if numbers else []
        lines += ["import torch"] if "torch." in text else []
        lines += [""] if lines else []
        local = [name for name, module in imports.items() if not module]
        for module in sorted({*imports.values()} - {""}):
            names = sorted(name for name, where in imports.items() if where == module)
            lines.append(f"from {module} import {', '.join(names)}")
        lines += [f"# {name}: the class under test" for name in local]
        return "\n".join([*lines, *(["", *left] if left else []), "", "", text])

    def _named(self, item: Any) -> str:
        """The name of a class or function, noted to be imported."""
        local = "." in item.__qualname__
        self._imports[item.__name__] = "" if local else item.__module__
        return str(item.__name__)

    def _plain(self, value: Any) -> str:
        if value is None or (
            isinstance(value, (bool, int, float, str, bytes)) and not isinstance(value, enum.Enum)
        ):
            return repr(value)
        if isinstance(value, enum.Enum):
            return f"{self._named(type(value))}.{value.name}"
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._items(value)
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{self._plain(k)}: {self._plain(v)}" for k, v in value.items()) + "}"
        if isinstance(value, torch.dtype):
            return str(value)
        if isinstance(value, torch.Tensor):
            return f"torch.tensor({value.tolist()}, dtype={value.dtype})"
        if inspect.isclass(value) or inspect.isfunction(value):
            return self._named(value) if "." not in value.__qualname__ else self._left_over(value)
        if attrs.has(type(value)):
            return self._instance(value)
        return self._left_over(value)

    def _items(self, value: Any) -> str:
        inner = ", ".join(self._plain(item) for item in value)
        if isinstance(value, list):
            return f"[{inner}]"
        if isinstance(value, tuple):
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        return f"{type(value).__name__}([{inner}])"

    def _instance(self, value: Any) -> str:
        """An attrs object, without what is at its default or its own affair."""
        if not attrs.has(type(value)):
            return (
                self._left_over(value) if type(value).__init__ is not object.__init__ else self._empty(value)
            )
        parts = []
        for field in attrs.fields(type(value)):
            own = getattr(value, field.name)
            if field.init and not field.name.startswith("_") and not _is_default(own, field.default):
                parts.append(f"{field.name}={self._plain(own)}")
        return f"{self._named(type(value))}({', '.join(parts)})"

    def _empty(self, value: Any) -> str:
        return f"{self._named(type(value))}()"

    def _left_over(self, value: Any) -> str:
        """A name for an object that can't be written down."""
        name = f"given_{len(self._given) + 1}"
        return self._given.setdefault(id(value), (name, value))[0]

    def _processor_case(self, case: processor_subject.Case) -> str:
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
        return self._call("processor_case", self.code(case.processor), fields)

    def _strategy_case(self, case: strategy_case.Case) -> str:
        kept = (item.name for item in attrs.fields(strategy_case.Case))
        fields = {name: getattr(case, name) for name in kept if name not in ("strategy", "model")}
        model = str(case.model) if is_named(str(case.model)) else case.model.module
        strategy: Any = case.strategy
        if type(strategy) is Verify:
            fields = {"model": model, "length": strategy.length, **fields}
            return self._call("drafter_case_of", self.code(strategy.drafter), fields)
        return self._call("strategy_case_of", self.code(strategy), {"model": model, **fields})

    def _call(self, function: str, first: str, fields: Mapping[str, Any]) -> str:
        lines = [first, *(f"{name}={self._plain(value)}" for name, value in fields.items())]
        return "\n".join([f"{function}(", *(f"    {line}," for line in lines), ")"])


def _is_default(value: Any, default: Any) -> bool:
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, which its stub hides
        return False
    return value is default or (type(value) is type(default) and bool(value == default))


def _global(value: Any) -> tuple[str, str] | None:
    """Module and name under which an object can be imported."""
    for name, module in list(sys.modules.items()):
        for known, held in list(vars(module).items()) if hasattr(module, "__dict__") else ():
            if held is value and known.isidentifier() and not known.startswith("_"):
                return name, known
    return None

"""The engines behind structured output, llguidance and xgrammar, each behind the same few methods.

A matcher is a place in a grammar, and a value: `Matcher.after` returns another one. Both libraries fork
a matcher in about two microseconds, so that drafts and beams need no rollback.
"""

import contextlib
import importlib
import json
import re
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import attrs
import numpy as np
import torch
from decodekit import CallContext, MissingLibraryError, ParameterError
from numpy.typing import NDArray

__all__ = ["ENGINES", "Form", "Matcher", "compile_matcher"]

Form = Literal["json_schema", "regex", "grammar"]


class Matcher(Protocol):
    """A place in a grammar; nothing changes it."""

    def after(self, *tokens: int) -> "Matcher | None":
        """The place after the tokens; None where the grammar doesn't have them."""

    def bits(self) -> NDArray[np.uint8]:
        """The tokens that may come next, a bit each, the lowest id in the lowest bit of the first byte."""

    def is_complete(self) -> bool:
        """Whether the text may end here."""

    def forced(self) -> list[int]:
        """The text that must come next, as the tokens that the tokenizer would make of it."""


@attrs.frozen(eq=False)
class _LLGuidance:
    _matcher: Any

    def after(self, *tokens: int) -> "Matcher | None":
        fork = self._matcher.deep_copy()
        return _LLGuidance(fork) if fork.consume_tokens(tokens) else None

    def bits(self) -> NDArray[np.uint8]:
        packed = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            message = f"llguidance gave up on this grammar: {self._matcher.get_error()}; make it simpler"
            raise ParameterError(message)
        return np.frombuffer(packed, dtype=np.uint8)

    def is_complete(self) -> bool:
        return bool(self._matcher.is_accepting())

    def forced(self) -> list[int]:
        return list(self._matcher.compute_ff_tokens())


@attrs.frozen(eq=False)
class _XGrammar:
    _matcher: Any
    _words: int
    _encode: Callable[[str], list[int]]

    def after(self, *tokens: int) -> "Matcher | None":
        fork = self._matcher.fork()
        return attrs.evolve(self, matcher=fork) if all(map(fork.accept_token, tokens)) else None

    def bits(self) -> NDArray[np.uint8]:
        mask = torch.zeros(1, self._words, dtype=torch.int32)
        if not self._matcher.fill_next_token_bitmask(mask):
            mask.fill_(-1)
        packed: NDArray[np.uint8] = mask.numpy().view(np.uint8)[0]
        return packed

    def is_complete(self) -> bool:
        return bool(self._matcher.is_completed())

    def forced(self) -> list[int]:
        try:
            text = self._matcher.find_jump_forward_string()
        except UnicodeDecodeError:  # it begins or ends within a character
            return []
        return self._encode(text) if text else []


_INSTALL = {
    "llguidance": "pip install llguidance",
    "xgrammar": "pip install xgrammar (beside a CPU build of torch: "
    "pip install --no-deps xgrammar apache-tvm-ffi)",
}
_TOKENIZERS: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()
"""What an engine makes of a tokenizer takes a second for a large vocabulary."""


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"engine={name.partition('.')[0]!r} is not installed: {_INSTALL[name.partition('.')[0]]}"
        raise MissingLibraryError(message) from error


def _tokenizer(context: CallContext, engine: str, make: Callable[[], Any]) -> Any:
    made = _TOKENIZERS.setdefault(context.tokenizer, {})
    key = (engine, _width(context), context.eos_token_ids)
    if key not in made:
        made[key] = make()
    return made[key]


def _width(context: CallContext) -> int:
    return max(context.vocab_size, len(context.tokenizer))


def _with_llguidance(form: Form, text: str, whitespace: bool, context: CallContext) -> Matcher:
    library, hf = _library("llguidance"), _library("llguidance.hf")
    try:
        vocabulary = _tokenizer(
            context,
            "llguidance",
            lambda: hf.from_tokenizer(
                context.tokenizer,
                n_vocab=_width(context),
                eos_token=list(context.eos_token_ids),
            ),
        )
    except ValueError as error:
        message = f"llguidance can't use this tokenizer: {error}; take the fast one, or engine='xgrammar'"
        raise ParameterError(message) from error
    cls = library.LLMatcher
    if form == "json_schema":
        options: dict[str, Any] = {"whitespace_flexible": whitespace}
        options |= {} if whitespace else {"item_separator": ", ", "key_separator": ": "}
        grammar = cls.grammar_from_json_schema(text, overrides=options)
    elif form == "regex":
        grammar = f"start: /{library.regex_to_lark(text, use_ascii='dws')}/"
    else:
        with _refusals(form, text):
            grammar = library.grammar_from(form, text)
    wrong, complaints = cls.validate_grammar_with_warnings(grammar, vocabulary)
    if wrong:
        raise _refused(form, text, "\n".join(complaints))
    return _LLGuidance(cls(vocabulary, grammar, log_level=0))


def _with_xgrammar(form: Form, text: str, whitespace: bool, context: CallContext) -> Matcher:
    library = _library("xgrammar")
    compiler = _tokenizer(
        context,
        "xgrammar",
        lambda: library.GrammarCompiler(
            library.TokenizerInfo.from_huggingface(
                context.tokenizer, vocab_size=_width(context), stop_token_ids=list(context.eos_token_ids)
            ),
            max_threads=1,
        ),
    )
    with _refusals(form, text):
        if form == "json_schema":
            compiled = compiler.compile_json_schema(
                text, any_whitespace=whitespace, separators=(", ", ": "), strict_mode=False
            )
        elif form == "regex":
            compiled = compiler.compile_regex(_without_line_ends(text))
        elif "::=" in text:
            compiled = compiler.compile_grammar(text)
        else:
            compiled = compiler.compile_lark(text)
        matcher = library.GrammarMatcher(compiled)

    def encode(forced: str) -> list[int]:
        return list(context.tokenizer.encode(forced, add_special_tokens=False))

    return _XGrammar(matcher, -(-_width(context) // 32), encode)


def _without_line_ends(pattern: str) -> str:
    """The pattern with ``[^\\n]`` for each ``.``, which to xgrammar is a line end as well."""
    parts = re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", pattern, re.DOTALL)
    return "".join(r"[^\n]" if part == "." else part for part in parts)


@contextlib.contextmanager
def _refusals(form: Form, text: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, json.JSONDecodeError) as error:
        raise _refused(form, text, str(error)) from error


def _refused(form: Form, text: str, complaint: str) -> ParameterError:
    short = text if len(text) <= 200 else f"{text[:200]}..."
    return ParameterError(f"the {form} {short!r} is not allowed: {complaint.strip()}")


ENGINES: dict[str, Callable[[Form, str, bool, CallContext], Matcher]] = {
    "llguidance": _with_llguidance,
    "xgrammar": _with_xgrammar,
}


def compile_matcher(
    engine: str, form: Form, text: str, context: CallContext, *, whitespace: bool = False
) -> Matcher:
    """The place before the first token; ``whitespace`` lets JSON have spaces and line ends anywhere.

    Raises:
        MissingLibraryError: the engine is not installed.
        ParameterError: it can't use the tokenizer, or refuses the grammar; the message has its words.
    """
    return ENGINES[engine](form, text, whitespace, context)

"""Regular expression: texts that match it as a whole."""

from typing import ClassVar, Literal

import attrs
from decodekit import CallContext, Laws, Phase, Place, param

from decodekit_processors._matchers import Matcher, compile_matcher
from decodekit_processors._structured import LAWS, Structured, read_text

__all__ = ["Regex"]


@attrs.frozen
class Regex(Structured):
    """Let a row say nothing but a text that matches the expression from beginning to end, and then end.

    With a row's room running out, only what can still be finished is left. It belongs before temperature
    and truncations; a stop string or max_time can still cut a text off.

    Source: Willard and Louf (2023), "Efficient Guided Generation", arXiv 2307.09702. The syntax is the
        engine's: that of Rust's regex, without look-around and back references. ``.`` is no line end, and
        \\d, \\w and \\s are ASCII.
    Range: engine is llguidance or xgrammar. A list of patterns has one for each prompt.
    Shape: logits [B, V] -> [B, V].
    Keeps: the tokens after which a match is possible; EOS where the text is one.
    Raises: MissingLibraryError when the engine is not installed; ParameterError when the pattern is not
        allowed, can't be matched within max_new_tokens, or the call has no tokenizer or EOS token.
        EmptySupportError when a row has no room left to finish.
    """

    NAME: ClassVar[str] = "regex"
    LAWS: ClassVar[Laws] = LAWS
    PLACE: ClassVar[Place] = Place(phase=Phase.MASK)

    pattern: str = param(help="The expression, or @file.")
    engine: Literal["llguidance", "xgrammar"] = param(
        "llguidance", choices=("llguidance", "xgrammar"), help="The library that reads the pattern."
    )

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "pattern", read_text("pattern", self.pattern))

    @property
    def text(self) -> str:
        """The pattern."""
        return self.pattern

    def compile(self, context: CallContext) -> Matcher:
        """The place before the first token."""
        return compile_matcher(self.engine, "regex", self.pattern, context)

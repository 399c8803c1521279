"""Grammar: texts of a context-free language."""

from typing import ClassVar, Literal

import attrs
from decodekit import CallContext, Laws, Phase, Place, param

from decodekit_processors._matchers import Matcher, compile_matcher
from decodekit_processors._structured import LAWS, Structured, read_text

__all__ = ["Grammar"]


@attrs.frozen
class Grammar(Structured):
    """Let a row say nothing but a text that the grammar derives, and then end.

    With a row's room running out, only what can still be finished is left. It belongs before temperature
    and truncations; a stop string or max_time can still cut a text off.

    Source: Lark's grammars, which begin with ``start``, or EBNF as llama.cpp has it (GBNF, with ``::=``),
        which begins with ``root``; each engine knows its own dialect of them. Geng et al. (2023),
        arXiv 2305.13971.
    Range: engine is llguidance or xgrammar. A list of grammars has one for each prompt.
    Shape: logits [B, V] -> [B, V].
    Keeps: the tokens after which a text of the language is possible; EOS where the text is one.
    Raises: MissingLibraryError when the engine is not installed; ParameterError when the grammar is not
        allowed, has no text within max_new_tokens, or the call has no tokenizer or EOS token.
        EmptySupportError when a row has no room left to finish.
    """

    NAME: ClassVar[str] = "grammar"
    LAWS: ClassVar[Laws] = LAWS
    PLACE: ClassVar[Place] = Place(phase=Phase.MASK)

    grammar: str = param(help="The rules in Lark's form or in EBNF, or @file.")
    engine: Literal["llguidance", "xgrammar"] = param(
        "llguidance", choices=("llguidance", "xgrammar"), help="The library that reads the grammar."
    )

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "grammar", read_text("grammar", self.grammar))

    @property
    def text(self) -> str:
        """The rules."""
        return self.grammar

    def compile(self, context: CallContext) -> Matcher:
        """The place before the first token."""
        return compile_matcher(self.engine, "grammar", self.grammar, context)

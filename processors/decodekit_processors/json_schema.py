"""JSON schema: texts that are JSON and valid under a schema."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import attrs
from decodekit import CallContext, Laws, MissingLibraryError, ParameterError, Phase, Place, param

from decodekit_processors._matchers import Matcher, compile_matcher
from decodekit_processors._structured import LAWS, Structured, read_text

__all__ = ["JsonSchema"]

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")
_OPEN = {"additionalProperties", "unevaluatedProperties", "patternProperties", "$ref", "if", *_LISTS}
_NOT_BY_XGRAMMAR = {
    *("allOf", "not", "if", "then", "else", "multipleOf", "uniqueItems", "contains", "oneOf"),
    *("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems"),
    *("minLength", "maxLength", "pattern", "patternProperties", "propertyNames"),
}
"""Keywords that xgrammar ignores, or treats as something weaker; with the last line's, strings may hold
control characters, which is no JSON."""


@attrs.frozen
class JsonSchema(Structured):
    """Let a row say nothing but one JSON value that is valid under a schema, and then end.

    The schema is a dictionary, a text or file of JSON, or a Python type: a pydantic model, dataclass,
    TypedDict, Literal, list[int] and the like (through pydantic). Objects have their properties in the
    schema's order. With a row's room running out, only what can still be finished is left, so that the value
    is complete at the last token at the latest. It belongs before temperature and truncations; a stop
    string or max_time can still cut a text off.

    Source: JSON Schema, draft 2020-12, as far as the engine knows it; llguidance refuses what it doesn't.
        Masks: Willard and Louf (2023), arXiv 2307.09702; Dong et al. (2024), arXiv 2411.15100.
    Range: engine is llguidance or xgrammar. A list of schemas has one for each prompt.
    Shape: logits [B, V] -> [B, V].
    Keeps: the tokens after which a valid text is possible; EOS where the value is complete.
    Raises: MissingLibraryError when the engine is not installed; ParameterError when the schema is not
        allowed, can't be satisfied within max_new_tokens, or the call has no tokenizer or EOS token.
        EmptySupportError when a row has no room left to finish.
    """

    NAME: ClassVar[str] = "json_schema"
    LAWS: ClassVar[Laws] = LAWS
    PLACE: ClassVar[Place] = Place(phase=Phase.MASK)

    schema: Any = param(help="The schema: a dictionary, JSON text, @file, or a Python type.")
    whitespace: bool = param(False, help="Let the model choose spaces and lines; else as json.dumps does it.")
    additional_properties: bool = param(
        False, help="Let objects have properties that their schema doesn't name, where it is silent."
    )
    engine: Literal["llguidance", "xgrammar"] = param(
        "llguidance", choices=("llguidance", "xgrammar"), help="The library that reads the schema."
    )

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "schema", _as_text(read_text("schema", self.schema)))

    @property
    def text(self) -> str:
        """The schema that the engine gets."""
        schema = json.loads(self.schema)
        if not self.additional_properties and not _uses(schema, {"allOf"}):
            schema = _closed(schema)
        return json.dumps(schema)

    @property
    def ignored(self) -> list[str]:
        """Keywords of the schema that the engine would not enforce without a word."""
        return sorted(_uses(json.loads(self.schema), _NOT_BY_XGRAMMAR)) if self.engine == "xgrammar" else []

    def compile(self, context: CallContext) -> Matcher:
        """The place before the first token."""
        if self.ignored:
            message = (
                f"engine='xgrammar' does not enforce {', '.join(self.ignored)}, which the schema has: "
                "use engine='llguidance'"
            )
            raise ParameterError(message)
        return compile_matcher(self.engine, "json_schema", self.text, context, whitespace=self.whitespace)


def _as_text(schema: Any) -> str:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            message = f"schema={schema!r} is not JSON: {error}; a file is given as @path"
            raise ParameterError(message) from error
    elif not isinstance(schema, (Mapping, bool)):
        schema = _of_type(schema)
    if not isinstance(schema, (Mapping, bool)):
        message = f"schema={schema!r} is not allowed: a schema is an object, e.g. {{'type': 'object'}}"
        raise ParameterError(message)
    try:
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        message = f"schema={schema!r} is not JSON: {error}"
        raise ParameterError(message) from error


def _of_type(kind: Any) -> Any:
    try:
        import pydantic
    except ImportError as error:
        message = f"schema={kind!r} is a Python type and needs pydantic: pip install pydantic"
        raise MissingLibraryError(message) from error
    try:
        return pydantic.TypeAdapter(kind).json_schema()
    except pydantic.errors.PydanticUserError as error:
        message = (
            f"schema={kind!r} is not allowed: give a dictionary, JSON text, @file or a Python type. {error}"
        )
        raise ParameterError(message) from error


def _inner(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas in a schema, one level down."""
    found = [schema[name] for name in _SINGLE if name in schema]
    found += [item for name in (*_LISTS, "allOf") for item in schema.get(name, ())]
    return found + [item for name in _MAPS for item in schema.get(name, {}).values()]


def _uses(schema: Any, keywords: set[str]) -> set[str]:
    """Which of the keywords stand somewhere in the schema."""
    if not isinstance(schema, Mapping):
        return set()
    return (keywords & schema.keys()).union(*(_uses(item, keywords) for item in _inner(schema)))


def _closed(schema: Any) -> Any:
    """The schema without properties that it does not name, where it doesn't say otherwise."""
    if not isinstance(schema, Mapping):
        return schema
    new = dict(schema)
    new |= {name: _closed(new[name]) for name in _SINGLE if name in new}
    new |= {name: [_closed(item) for item in new[name]] for name in _LISTS if name in new}
    new |= {name: {key: _closed(item) for key, item in new[name].items()} for name in _MAPS if name in new}
    if "properties" in new and not _OPEN & new.keys():
        new["additionalProperties"] = False
    return new

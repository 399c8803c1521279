import dataclasses
import enum
import json
import os
import random
import sys
import typing

import decodekit as dk
import pytest
import torch
import typing_extensions
from decodekit import MissingLibraryError, ParameterError
from decodekit.processor import StatefulProcessor
from decodekit.testing import processor_checks
from decodekit_processors._structured import Structured
from decodekit_processors.json_schema import JsonSchema
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from tests.processors._structured import MODEL, TOKENIZER, answers, for_the_kit

PROFILE = os.environ.get("DECODEKIT_TEST_PROFILE", "fast")  # what all three share is checked with regex
ENGINES = ["llguidance", "xgrammar"]
EXAMPLES = [
    {"schema": schema, "engine": engine}
    for schema in ({"type": "integer"}, {"type": "string"})
    for engine in ENGINES
]
CHECKS = dict(processor_checks(for_the_kit(JsonSchema, bounded=False), examples=EXAMPLES, profile=PROFILE))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["one", "two"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
}


def scalars(r):
    low = r.randint(-20, 20)
    return r.choice(
        [
            {"type": "string"},
            {"type": "string", "minLength": r.randint(0, 3), "maxLength": r.randint(3, 9)},
            {"type": "string", "pattern": r.choice(["^[a-c]+$", "^\\d{2}-[xy]*$"])},
            {"type": "integer", "multipleOf": r.randint(2, 9)},
            {"type": "integer", "minimum": low, "maximum": low + r.randint(0, 99)},
            {"type": "number"},
            {"type": "boolean"},
            {"type": "null"},
            {"enum": r.sample(["one", 2, 3.5, None, True, 'é"\\'], r.randint(1, 4))},
            {"const": r.choice(["x", 7, False])},
            {"type": ["integer", "null"]},
        ]
    )


def schemas(r, depth=2):
    """A random schema of what llguidance enforces."""
    kind = r.choice(["scalar", "array", "object", "union"]) if depth else "scalar"
    if kind == "array":
        least = r.randint(0, 2)
        return {"type": "array", "items": schemas(r, depth - 1), "minItems": least, "maxItems": least + 2}
    if kind == "object":
        names = r.sample(["name", "age", "tags", "a b", "é"], r.randint(1, 3))
        required = [name for name in names if r.random() < 0.6]
        properties = {name: schemas(r, depth - 1) for name in names}
        return {"type": "object", "properties": properties, "required": required}
    if kind == "union":
        return {"anyOf": [schemas(r, depth - 1), schemas(r, depth - 1)]}
    return scalars(r)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("room", [70, 130])
def test_every_text_is_valid(engine, room):
    """A hot sampler, random schemas, rows of different schemas, little room, and another's validator."""
    made = [schemas(random.Random(seed)) for seed in range(150)]
    if engine == "xgrammar":
        made = [schema for schema in made if not JsonSchema(schema, engine=engine).ignored]
    made = made[:40]
    spec = ("json_schema", {"schema": made, "engine": engine})
    texts, _ = answers(spec, count=len(made), max_new_tokens=room)
    for schema, text in zip(made, texts, strict=True):
        Draft202012Validator(schema).validate(json.loads(text))


def test_a_model_without_the_processor_would_not_say_json():
    texts, _ = answers(count=9)
    assert not any(text.startswith("{") and text.endswith("}") for text in texts)


SPECS = [
    "greedy",
    "sample",
    ("beam", {"num_beams": 2}),
    ("beam", {"num_beams": 2, "do_sample": True}),
    ("assisted", {"prompt_lookup_num_tokens": 4}),
    ("assisted", {"prompt_lookup_num_tokens": 4, "do_sample": True}),
    ("assisted", {"assistant_model": MODEL, "do_sample": True}),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("strategy", SPECS, ids=lambda given: str(given)[:60])
def test_every_strategy_gives_valid_texts(strategy, engine):
    spec, room = ("json_schema", {"schema": PERSON, "engine": engine}), 45
    texts, out = answers(spec, strategy=strategy, max_new_tokens=room)
    assert all(Draft202012Validator(PERSON).is_valid(json.loads(text)) for text in texts)
    if strategy[0] == "assisted":
        plain = "sample" if strategy[1].get("do_sample") else "greedy"
        assert torch.equal(out.sequences, answers(spec, strategy=plain, max_new_tokens=room)[1].sequences)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("strategy", ["greedy", "sample"])
def test_forced_tokens_save_forward_passes_and_change_nothing(strategy, engine, monkeypatch):
    spec = ("json_schema", {"schema": PERSON, "engine": engine})
    _, fewer = answers(spec, strategy=strategy)
    monkeypatch.setattr(Structured, "forced", StatefulProcessor.forced)
    _, plain = answers(spec, strategy=strategy)
    assert torch.equal(fewer.sequences, plain.sequences)
    torch.testing.assert_close(fewer.token_logprobs, plain.token_logprobs, atol=1e-4, rtol=0)
    assert fewer.stats.forward_passes < plain.stats.forward_passes - 5


def test_streams_and_seeds():
    events = dk.stream(
        MODEL,
        TOKENIZER,
        "Hello",
        strategy="sample",
        processors=[JsonSchema(PERSON)],
        seed=3,
        max_new_tokens=60,
    )
    said = "".join(event.text for event in events if isinstance(event, (dk.TokenEvent, dk.FinishedEvent)))
    Draft202012Validator(PERSON).validate(json.loads(said))


def test_beside_the_configuration():
    """As an item of logits_processor it stands before temperature and truncations."""
    inputs = TOKENIZER(["Hello", "Hi there"], return_tensors="pt", padding=True, padding_side="left")
    ids = dk.generate(
        MODEL,
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        logits_processor=[JsonSchema(PERSON)],
        tokenizer=TOKENIZER,
        do_sample=True,
        temperature=[0.5, 3.0],
        top_p=0.9,
        max_new_tokens=60,
    )
    for text in TOKENIZER.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True):
        Draft202012Validator(PERSON).validate(json.loads(text))


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Person(BaseModel):
    name: str = Field(max_length=8)
    color: Color
    friend: "Person | None" = None


@dataclasses.dataclass
class Point:
    x: int
    y: int | None


class Options(typing_extensions.TypedDict):
    deep: bool


@pytest.mark.parametrize("kind", [Person, Point, Options, list[int], typing.Literal["a", "b"], int | None])
def test_python_types_are_schemas(kind):
    import pydantic

    texts, _ = answers(("json_schema", {"schema": kind}), max_new_tokens=60)
    for text in texts:
        pydantic.TypeAdapter(kind).validate_json(text)


def test_types_need_pydantic(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(MissingLibraryError, match="needs pydantic: pip install pydantic"):
        JsonSchema(list[int])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_is_missing_is_named_with_its_install_line(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(MissingLibraryError, match=f"engine='{engine}' is not installed: pip install"):
        answers(("json_schema", {"schema": PERSON, "engine": engine}))


def test_texts_files_and_dictionaries_are_the_same_schema(tmp_path):
    (tmp_path / "person.json").write_text(json.dumps(PERSON, indent=4))
    given = [PERSON, json.dumps(PERSON), f"@{tmp_path / 'person.json'}", tmp_path / "person.json"]
    assert len({hash(JsonSchema(schema)) for schema in given}) == 1


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "is not JSON"),
        ("@no-such-file.json", "can't be read"),
        ([1], "schema"),
        (3, "schema=3 is not allowed"),
        ({"enum": {1}}, "is not JSON"),
    ],
)
def test_what_is_no_schema_is_refused_when_it_is_made(schema, message):
    with pytest.raises(ParameterError, match=message):
        JsonSchema(schema)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "schema",
    [{"type": "nope"}, {"enum": []}, {"not": {"type": "null"}}, {"type": "array", "uniqueItems": True}],
)
def test_what_the_engine_would_not_enforce_is_refused(schema, engine):
    with pytest.raises(ParameterError, match=r"is not allowed|does not enforce"):
        answers(("json_schema", {"schema": schema, "engine": engine}))


@pytest.mark.parametrize("engine", ENGINES)
def test_too_little_room_is_refused_before_the_model_runs(engine):
    with pytest.raises(ParameterError, match="json_schema can't be satisfied within max_new_tokens=5"):
        answers(("json_schema", {"schema": PERSON, "engine": engine}), max_new_tokens=5)


@pytest.mark.parametrize("engine", ENGINES)
def test_with_the_least_room_the_shortest_text_is_said(engine):
    spec = ("json_schema", {"schema": {"type": "array", "items": PERSON, "minItems": 1}, "engine": engine})
    with pytest.raises(ParameterError) as caught:
        answers(spec, max_new_tokens=5)
    least = int(str(caught.value).split(" has ")[1].split()[0])
    texts, out = answers(spec, max_new_tokens=least)
    assert all(len(json.loads(text)) == 1 for text in texts)
    assert set(out.finish_reasons) == {"length"} or out.finish_reasons


def test_other_properties_only_where_they_are_asked_for():
    loose = JsonSchema({"type": "object", "properties": {"a": {"type": "null"}}}, additional_properties=True)
    strict = JsonSchema({"type": "object", "properties": {"a": {"type": "null"}}})
    assert set(answers(strict, count=6)[0]) <= {"{}", '{"a": null}'}
    assert any(json.loads(text).keys() - {"a"} for text in answers(loose, count=6, max_new_tokens=30)[0])
    both = {"allOf": [{"properties": {"a": {"type": "null"}}, "required": ["a"]}, {"properties": {"b": {}}}]}
    assert json.loads(JsonSchema(both).text) == both


def test_white_space_is_free_when_asked_for():
    texts, _ = answers(("json_schema", {"schema": PERSON, "whitespace": True}), max_new_tokens=60)
    assert all(Draft202012Validator(PERSON).is_valid(json.loads(text)) for text in texts)
    assert any(text != json.dumps(json.loads(text), ensure_ascii=False) for text in texts)


def test_a_long_schema_is_said_in_short():
    assert JsonSchema({"type": "null"}).describe() == 'json_schema({"type": "null"})'
    assert len(JsonSchema(PERSON).describe()) < 80

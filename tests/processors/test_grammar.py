import os
import re

import pytest
from decodekit import ParameterError
from decodekit.testing import processor_checks
from decodekit_processors.grammar import Grammar

from tests.processors._structured import answers, for_the_kit

PROFILE = os.environ.get("DECODEKIT_TEST_PROFILE", "fast")  # what all three share is checked with regex
ENGINES = ["llguidance", "xgrammar"]
EXAMPLES = [
    {"grammar": text, "engine": engine}
    for text in ('start: "!" start? "\\""', 'root ::= "!" root? "0" | "#"')
    for engine in ENGINES
]
CHECKS = dict(processor_checks(for_the_kit(Grammar, bounded=False), examples=EXAMPLES, profile=PROFILE))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


SUMS = {
    "lark": 'start: sum\nsum: item | sum "+" item\nitem: /[0-9]+/ | "(" sum ")"\n',
    "ebnf": 'root ::= item ("+" item)*\nitem ::= [0-9]+ | "(" root ")"\n',
}


def is_sum(text):
    """An independent reader: Python's own."""
    return bool(re.fullmatch(r"[0-9+()]+", text)) and compile(re.sub(r"\b0+(?=\d)", "", text), "sum", "eval")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", SUMS)
@pytest.mark.parametrize("room", [7, 40])
def test_every_text_is_of_the_language(engine, form, room):
    texts, _ = answers(("grammar", {"grammar": SUMS[form], "engine": engine}), count=9, max_new_tokens=room)
    assert all(is_sum(text) for text in texts)
    assert len(set(texts)) > 3


@pytest.mark.parametrize("engine", ENGINES)
def test_brackets_are_closed_before_the_room_is_used_up(engine):
    """The model likes opening brackets best, so that only the mask can end the text."""
    like = ("logit_bias", {"logit_bias": dict.fromkeys(opening(), 50.0)})
    deep = 'start: "(" start ")" | "x"'
    texts, out = answers(like, ("grammar", {"grammar": deep, "engine": engine}), max_new_tokens=21)
    assert all(re.fullmatch(r"\(+x\)+", text) and text.count("(") == text.count(")") for text in texts)
    assert all(len(text) >= 15 for text in texts)
    assert set(out.finish_reasons) <= {"eos", "length"}


def opening():
    from tests.processors._structured import TOKENIZER

    return [token for text, token in TOKENIZER.get_vocab().items() if set(text) == {"("}]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("text", ["start: nobody", 'begin: "a"', 'root ::= "a'])
def test_what_is_no_grammar_is_refused(engine, text):
    with pytest.raises(ParameterError, match=r"the grammar .* is not allowed"):
        answers(("grammar", {"grammar": text, "engine": engine}))

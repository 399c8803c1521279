import re

import pytest
from decodekit import Chain, ParameterError, UnknownNameError
from decodekit.chain_text import is_text, read_chain
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.recursive(
    st.integers(-99, 99)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab>,()='\"\\ \n", max_size=6),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
NAMES = st.from_regex("[a-z_]{1,8}", fullmatch=True).filter(lambda name: name != "none")


@given(st.lists(st.tuples(NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), min_size=1, max_size=4))
def test_whatever_is_written_is_read_again(chain):
    items = [f"{name}({', '.join(f'{key}={value!r}' for key, value in own.items())})" for name, own in chain]
    assert read_chain(" > ".join(items)) == chain


def test_the_three_forms_of_an_item():
    text = "repetition_penalty=1.1>top_k = 50 > min_p( min_p=0.05 , min_tokens_to_keep=2,) > dry"
    assert read_chain(text) == [
        ("repetition_penalty", {"repetition_penalty": 1.1}),
        ("top_k", {"top_k": 50}),
        ("min_p", {"min_p": 0.05, "min_tokens_to_keep": 2}),
        ("dry", {}),
    ]
    assert read_chain("none") == read_chain("") == []


def test_values_that_python_does_not_write_so():
    assert read_chain("a=true > b=((1,), -inf)") == [
        ("a", {"a": "true"}),
        ("b", {"b": ((1,), -float("inf"))}),
    ]
    assert str(Chain.parse("renormalize_logits=true")) == "renormalize_logits=True"
    assert Chain.parse("sequence_bias=[[[3], -inf]]").processors[0].sequence_bias == (((3,), -float("inf")),)


@pytest.mark.parametrize(
    "text",
    [
        "repetition_penalty=1.1 > top_k=50 > min_p=0.05",
        "dry(multiplier=0.8, breakers=('\\n', '>'), breaker_ids=((1, 2), (3,))) > temperature=0.7",
        "min_p(min_p=0.05, min_tokens_to_keep=2) > xtc(probability=0.3)",
        "p_less",
        "none",
    ],
)
def test_a_chain_is_what_its_text_says(text):
    chain = Chain.parse(text)
    assert Chain.parse(str(chain)) == chain


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("top_k=50 > > min_p", ParameterError, "'' in the chain 'top_k=50 > > min_p' is not a processor"),
        ("top_k(50)", ParameterError, "'top_k(50)' in the chain"),
        ("a b", ParameterError, "write name, name=value or name(key=value, ...)"),
        ("top_k=", ParameterError, "'top_k=' in the chain"),
        ("top_k=(50", ParameterError, "top_k='(50' is not allowed"),
        ("top_k=[1, 2]", ParameterError, "give generate the text itself: processors='top_k=[1, 2]'"),
        ("dry(multiplier=[0, 1])", ParameterError, "multiplier=[0, 1] in the chain"),
        ("topk=50", UnknownNameError, "Did you mean 'top_k'"),
        ("top_k=-1", ParameterError, "top_k must be int in [0, inf)"),
        ("top_k(k=3)", ParameterError, "processor 'top_k' has no parameter 'k'"),
        ("bad_words_ids", ParameterError, "processor 'bad_words_ids' needs bad_words_ids"),
    ],
)
def test_an_error_names_what_is_wrong(text, error, message):
    with pytest.raises(error, match=re.escape(message)):
        Chain.parse(text)


def test_a_name_alone_is_no_text_of_a_chain():
    assert not is_text("top_k")
    assert not is_text(("top_k", {}))
    assert is_text("top_k=3")


def test_what_is_no_text_is_refused():
    with pytest.raises(ParameterError, match=r"Chain\.parse got 5: it reads a text"):
        Chain.parse(5)

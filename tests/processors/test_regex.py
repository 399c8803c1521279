import re

import decodekit as dk
import pytest
import torch
from decodekit import CallContext, History, ParameterError
from decodekit.testing import processor_checks
from decodekit_processors.regex import Regex

from tests.processors._structured import BYTES, EOS, MODEL, TOKENIZER, answers, for_the_kit

CONTEXT = CallContext(vocab_size=len(TOKENIZER), eos_token_ids=(EOS,), tokenizer=TOKENIZER)
ENGINES = ["llguidance", "xgrammar"]
EXAMPLES = [{"pattern": p, "engine": e} for p in ('[!"#$]*', "([!-/]{2})*|[#-@]+0?") for e in ENGINES]


def accepts(prompt, tokens, pattern, engine):
    return re.fullmatch(pattern, BYTES.decode(tokens[:-1])) is not None


CHECKS = dict(processor_checks(for_the_kit(Regex, bounded=True), examples=EXAMPLES, accepts=accepts))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


PATTERNS = [
    *(r"[ab]+", r"(yes|no), .*\.", r"[a-z]{3,10}-\d{4}", r"\d{4}-\d\d-\d\d", r"(\d+, )*\d+", r"x*foo"),
    *(r"[^a-z]{2,}", r"(a|(b|(c|d)e)f)+", r"\{\"k\": (true|null)\}", r".*", r"[\w.]+@\w+\.com", r"é+"),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("room", [12, 30])
def test_every_text_matches(engine, room):
    count = 4 * len(PATTERNS)
    texts, _ = answers(
        ("regex", {"pattern": 4 * PATTERNS, "engine": engine}), count=count, max_new_tokens=room
    )
    for text, pattern in zip(texts, 4 * PATTERNS, strict=True):
        assert re.fullmatch(pattern, text), (pattern, text)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_mask_is_what_can_still_match(engine):
    """Against brute force: a token is allowed when the text with it is the beginning of one of the matches.

    Where there is no choice of text llguidance leaves only the tokenizer's own token of it.
    """
    matches = {"ab", "abba", "b", "no", "null"}
    bound = Regex("|".join(sorted(matches)), engine=engine).bind(CONTEXT)
    texts = [TOKENIZER.decode([token]) for token in range(len(TOKENIZER))]
    states, found = [("", bound.init([]))], set()
    while states:
        text, state = states.pop()
        out = bound.process(torch.zeros(1, len(TOKENIZER)), History.of([[0]]), [state])[0]
        allowed = set((out == 0).nonzero()[:, 0].tolist()) - {EOS}
        tokens = enumerate(texts)
        possible = {t for t, more in tokens if any(m.startswith(text + more) for m in matches)} - {EOS}
        assert (float(out[EOS]) == 0) == (text in matches)
        assert allowed == possible or (
            engine == "llguidance" and allowed == {*bound.forced(state)[:1]} <= possible
        )
        found |= {text} & matches
        forced = TOKENIZER.decode(bound.forced(state))
        assert all(match.startswith(text + forced) for match in matches if match.startswith(text))
        states += [(text + texts[token], bound.advance(state, token, out)) for token in allowed]
    assert found == matches


def test_digits_are_ascii_with_both_engines():
    arabic = "٣".encode()
    for engine in ENGINES:
        bound = Regex(r"\d", engine=engine).bind(CONTEXT)
        first = TOKENIZER.encode(arabic.decode(), add_special_tokens=False)[0]
        out = bound.process(torch.zeros(1, len(TOKENIZER)), History.of([[0]]), [bound.init([])])
        assert out[0, first] == -torch.inf


@pytest.mark.parametrize("engine", ENGINES)
def test_a_match_that_is_too_long_is_refused_before_the_model_runs(engine):
    pattern = {"pattern": "[ab]{30}[cd]{30}", "engine": engine}
    with pytest.raises(
        ParameterError, match=r"regex can't be satisfied within max_new_tokens=20: .* 60 tokens"
    ):
        answers(("regex", pattern), max_new_tokens=20)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("pattern", "word"), [("[a-z", "regex"), (r"(a)\1", "regex"), ("a(?=b)", "regex")])
def test_what_the_engine_can_not_do_is_refused_in_its_words(engine, pattern, word):
    with pytest.raises(ParameterError, match=rf"the {word} .* is not allowed: "):
        answers(("regex", {"pattern": pattern, "engine": engine}))


def test_a_tokenizer_and_an_end_are_needed():
    with pytest.raises(ParameterError, match="regex needs the model's tokenizer: pass tokenizer="):
        dk.generate(MODEL, torch.tensor([[1]]), processors=[Regex("a")], max_new_tokens=3)
    with pytest.raises(ParameterError, match="regex needs an EOS token"):
        Regex("a").bind(CallContext(vocab_size=9, tokenizer=TOKENIZER))
    with pytest.raises(ParameterError, match="engine='outlines' is not allowed"):
        Regex("a", engine="outlines")


def test_a_pattern_may_stand_in_a_file(tmp_path):
    (tmp_path / "pattern.txt").write_text("[ab]{2}")
    assert Regex(f"@{tmp_path / 'pattern.txt'}") == Regex("[ab]{2}")
    with pytest.raises(ParameterError, match=r"pattern=@.*none.txt can't be read"):
        Regex(f"@{tmp_path / 'none.txt'}")

import statistics

import decodekit as dk
import numpy as np
import pytest
import torch
from decodekit import History, ParameterError
from decodekit.ledger import Ledger
from decodekit.testing import processor_checks
from decodekit_processors.kgw import KGW
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedConfig, WatermarkDetector, WatermarkingConfig, WatermarkLogitsProcessor

from tests.processors._watermarked import MODEL, PROMPTS, VOCAB, texts

SCHEMES = [("lefthash", 1), ("lefthash", 3), ("selfhash", 1), ("selfhash", 4)]
EXAMPLES = [
    {"seeding_scheme": scheme, "context_width": width, "vocab_size": 48, "bias": bias}
    for scheme, width in SCHEMES
    for bias in (2.5, -1.0)
]
CHECKS = dict(processor_checks(KGW, examples=EXAMPLES))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


def config(scheme, width, **values):
    return WatermarkingConfig(seeding_scheme=scheme, context_width=width, **values)


@pytest.mark.parametrize(("scheme", "width"), SCHEMES)
@given(st.data())
def test_same_bits_as_transformers(scheme, width, data):
    size = data.draw(st.integers(41, 300))
    key = data.draw(st.integers(0, 2**40))
    ratio = data.draw(st.sampled_from([0.1, 0.25, 0.5, 0.9]))
    rows = data.draw(st.lists(st.tuples(*[st.integers(0, size - 1)] * 5), min_size=1, max_size=3))
    x = torch.randn(len(rows), size, generator=torch.Generator().manual_seed(key % 999)) * 4
    values = {"greenlist_ratio": ratio, "hashing_key": key, "seeding_scheme": scheme, "context_width": width}
    theirs, ours = WatermarkLogitsProcessor(size, "cpu", **values), KGW(**values)
    for row in range(len(rows)):
        out = ours(x, History.of(rows))[row]
        try:
            assert torch.equal(out, theirs(torch.tensor(rows[row : row + 1]), x[row : row + 1])[0])
        except IndexError:  # in transformers a step without a green candidate is an error
            assert torch.equal(out, x[row])


def test_padding_is_no_context():
    """In transformers a short row is marked by its padding, so that the batch changes its text."""
    mark, x = KGW(context_width=3), torch.zeros(2, 64)
    history = History.of([[5, 6, 7, 8], [9]])
    out = mark(x, history)
    assert out[0].any()
    assert not out[1].any()
    theirs = WatermarkLogitsProcessor(64, "cpu", context_width=3)(history.tokens, x)
    assert theirs[1].any()


@pytest.mark.parametrize(("scheme", "width"), SCHEMES)
def test_a_step_looks_only_at_the_last_tokens(scheme, width, monkeypatch):
    """Reading the whole row at every step would make a long text's time quadratic."""
    mark, x = KGW(seeding_scheme=scheme, context_width=width), torch.randn(2, 64)
    rows = [[7] * 50 + [1, 2, 3, 4], [5, 6]]
    expected = mark(x, History.of(rows))
    history = Ledger(rows, 0, 10**6, torch.device("cpu")).history
    assert history.indexed
    monkeypatch.delattr(History, "row")
    assert torch.equal(mark(x, history), expected)


@pytest.mark.parametrize(("scheme", "width"), SCHEMES)
def test_detects_what_transformers_detects(scheme, width):
    mark = KGW(seeding_scheme=scheme, context_width=width, vocab_size=VOCAB)
    text = texts(1, mark, length=60)[0]
    model = PreTrainedConfig(bos_token_id=VOCAB, vocab_size=VOCAB)
    for unique in (True, False):
        detector = WatermarkDetector(model, "cpu", config(scheme, width), ignore_repeated_ngrams=unique)
        theirs = detector(torch.tensor([text]), return_dict=True)
        ours = mark.detect(text, ignore_repeated_ngrams=unique)
        if width == 1 or scheme == "selfhash" or not unique:  # else only the last token tells n-grams apart
            assert ours.scored == theirs.num_tokens_scored
            np.testing.assert_allclose([ours.z, ours.p_value], [*theirs.z_score, *theirs.p_value], atol=1e-12)


@pytest.mark.parametrize(("scheme", "width"), [("lefthash", 1), ("selfhash", 3)])
def test_a_marked_text_is_found_and_that_of_another_key_is_not(scheme, width):
    mark = KGW(seeding_scheme=scheme, context_width=width, vocab_size=VOCAB, hashing_key=77)
    other = KGW(seeding_scheme=scheme, context_width=width, vocab_size=VOCAB, hashing_key=78)
    marked = texts(8, mark, length=80)
    assert min(mark.detect(text).z for text in marked) > 4
    assert all(mark.detect(text).is_marked() and mark.detect(text).p_value < 1e-4 for text in marked)
    wrong = [other.detect(text).z for text in marked]
    assert max(map(abs, wrong)) < 4
    assert abs(statistics.mean(wrong)) < 1.2


def test_without_the_mark_z_is_a_standard_normal_number():
    unmarked = texts(24, length=100)
    zs = [KGW(vocab_size=VOCAB, hashing_key=key).detect(text).z for text in unmarked for key in range(20)]
    assert abs(statistics.mean(zs)) < 0.15
    assert 0.85 < statistics.pstdev(zs) < 1.15


def test_a_repetition_is_no_evidence():
    loop = [1, 2] * 200
    for key in range(40):
        mark = KGW(vocab_size=VOCAB, hashing_key=key)
        assert abs(mark.detect(loop).z) < 3
    marks = [KGW(vocab_size=VOCAB, hashing_key=key) for key in range(40)]
    assert max(mark.detect(loop, ignore_repeated_ngrams=False).z for mark in marks) > 10


@pytest.mark.parametrize(
    "strategy", [("beam", {"num_beams": 3}), ("assisted", {"prompt_lookup_num_tokens": 3})]
)
def test_the_mark_is_there_with_every_strategy(strategy):
    mark = KGW(vocab_size=VOCAB, bias=4.0)
    assert min(mark.detect(text).z for text in texts(4, mark, length=40, strategy=strategy)) > 3


@pytest.mark.parametrize("arguments", [{}, {"do_sample": True, "temperature": 0.8}, {"num_beams": 2}])
@pytest.mark.parametrize("given", [config("lefthash", 1), {"bias": 3.0, "seeding_scheme": "selfhash"}])
def test_the_argument_of_generate_gives_the_tokens_of_transformers(given, arguments):
    arguments = {"watermarking_config": given, "max_new_tokens": 12, "pad_token_id": 0, **arguments}
    torch.manual_seed(0)
    theirs = MODEL.generate(PROMPTS, **arguments)
    torch.manual_seed(0)
    assert torch.equal(dk.generate(MODEL, PROMPTS, **arguments), theirs)


@pytest.mark.parametrize(
    ("ids", "message"),
    [([[1, 2]], "one text"), ([1], "needs at least 2"), (torch.tensor([[1, 2]]), "call detect once a text")],
)
def test_what_is_no_text_is_refused(ids, message):
    with pytest.raises(ParameterError, match=message):
        KGW(vocab_size=VOCAB).detect(ids)


def test_the_detector_wants_to_know_the_vocabulary():
    with pytest.raises(ParameterError, match="vocab_size=None"):
        KGW().detect([1, 2, 3])

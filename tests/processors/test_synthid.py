import statistics

import decodekit as dk
import pytest
import torch
from decodekit import History, ParameterError
from decodekit.testing import processor_checks
from decodekit_processors.synthid import SynthID
from hypothesis import given
from hypothesis import strategies as st
from transformers import SynthIDTextWatermarkingConfig, SynthIDTextWatermarkLogitsProcessor

from tests.processors._watermarked import MODEL, PROMPTS, texts

KEYS = tuple(torch.randint(0, 2**30, (20,), generator=torch.Generator().manual_seed(0)).tolist())
OTHER = tuple(torch.randint(0, 2**30, (20,), generator=torch.Generator().manual_seed(1)).tolist())
EXAMPLES = [
    {"keys": KEYS[:3]},
    {"keys": KEYS[:1], "ngram_len": 2, "context_history_size": 2},
    {"keys": KEYS[:2], "ngram_len": 3, "skip_first_ngram_calls": True, "sampling_table_size": 1001},
    {"keys": KEYS[:2], "debug_mode": True},
]
CHECKS = dict(processor_checks(SynthID, examples=EXAMPLES))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


@given(
    st.integers(2, 4),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([7, 1000, 2**16]),
    st.lists(st.tuples(*[st.integers(0, 3)] * 9), min_size=1, max_size=3),
)
def test_same_bits_as_transformers_at_every_step(ngram_len, history, skip, table, rows):
    values = {"ngram_len": ngram_len, "keys": list(KEYS[:5]), "context_history_size": history}
    values |= {"skip_first_ngram_calls": skip, "sampling_table_size": table, "sampling_table_seed": 3}
    theirs = SynthIDTextWatermarkLogitsProcessor(device="cpu", **values)
    ours, random = SynthID(**values), torch.Generator().manual_seed(table)
    for count in range(len(rows[0]) + 1):
        x = torch.randn(len(rows), 50, generator=random) * 3
        tokens = torch.tensor([[9, *row[:count]] for row in rows])
        out = ours(x, History.of([[9]] * len(rows), [row[:count] for row in rows]))
        assert torch.equal(out, theirs(tokens, x))


def test_a_token_that_is_ruled_out_stays_so():
    x = torch.tensor([[0.0, 1.0, -torch.inf]])
    assert SynthID(KEYS)(x, History.of([[1]]))[0, 2] == -torch.inf
    theirs = SynthIDTextWatermarkLogitsProcessor(5, list(KEYS), 2**16, 0, 1024, "cpu")(torch.tensor([[1]]), x)
    assert theirs[0, 2].isfinite()


def test_over_all_keys_a_token_keeps_its_probability():
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    random, total = torch.Generator().manual_seed(0), torch.zeros(3, dtype=torch.float64)
    count = 3000
    for keys in torch.randint(0, 2**40, (count, 3), generator=random).tolist():
        total += SynthID(tuple(keys))(p.log()[None], History.of([[0]], [[5, 6, 7, 8]]))[0].softmax(-1)
    torch.testing.assert_close(total / count, p, atol=0.02, rtol=0)


def test_a_marked_text_is_found_and_that_of_another_key_is_not():
    mark, other = SynthID(KEYS), SynthID(OTHER)
    marked = texts(8, mark, length=80)
    assert min(mark.detect(text).z for text in marked) > 5
    assert min(mark.detect(text, weighted=False).z for text in marked) > 4
    wrong = [other.detect(text).z for text in marked]
    assert max(map(abs, wrong)) < 4
    assert abs(statistics.mean(wrong)) < 1.2


def test_without_the_mark_z_is_a_standard_normal_number():
    unmarked, zs = texts(12, length=60), []
    for seed in range(20):
        keys = torch.randint(0, 2**30, (10,), generator=torch.Generator().manual_seed(seed)).tolist()
        zs += [SynthID(tuple(keys)).detect(text).z for text in unmarked]
    assert abs(statistics.mean(zs)) < 0.25
    assert 0.8 < statistics.pstdev(zs) < 1.2


def test_a_context_counts_once():
    assert SynthID(KEYS, ngram_len=3).detect([1, 2, 3] * 50).scored == 3
    assert SynthID(KEYS, ngram_len=3, context_history_size=1).detect([1, 2, 3] * 50).scored == 148


@pytest.mark.parametrize("arguments", [{}, {"do_sample": True, "temperature": 0.8}])
def test_the_argument_of_generate_gives_the_tokens_of_transformers(arguments):
    given = SynthIDTextWatermarkingConfig(ngram_len=3, keys=list(KEYS))
    arguments = {"watermarking_config": given, "max_new_tokens": 12, "pad_token_id": 0, **arguments}
    torch.manual_seed(0)
    theirs = MODEL.generate(PROMPTS, **arguments)
    torch.manual_seed(0)
    assert torch.equal(dk.generate(MODEL, PROMPTS, **arguments), theirs)


def test_beams_carry_the_mark_and_in_transformers_hardly():
    """Each hypothesis has its own contexts here; there they stay where the beam was."""
    mark = SynthID(KEYS)
    given = SynthIDTextWatermarkingConfig(ngram_len=5, keys=list(KEYS))
    arguments = {"watermarking_config": given, "max_new_tokens": 60, "pad_token_id": 0, "num_beams": 8}
    torch.manual_seed(0)
    ours = dk.generate(MODEL, PROMPTS, do_sample=True, **arguments)[:, 3:]
    theirs = MODEL.generate(PROMPTS, do_sample=True, **arguments)[:, 3:]
    assert min(mark.detect(text).z for text in ours) > 6
    assert min(mark.detect(text).z for text in theirs) < 4


def test_drafts_change_no_token():
    plain = texts(4, SynthID(KEYS), length=40)
    lookup = ("assisted", {"prompt_lookup_num_tokens": 3, "do_sample": True})
    assert texts(4, SynthID(KEYS), length=40, strategy=lookup) == plain


def test_no_key_is_refused():
    with pytest.raises(ParameterError, match=r"keys=\(\) is not allowed"):
        SynthID(())

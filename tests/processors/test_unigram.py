import statistics

import pytest
import torch
from decodekit import History, ParameterError
from decodekit.testing import OracleRow, processor_checks
from decodekit_processors.unigram import Unigram

from tests.processors._watermarked import VOCAB, texts

EXAMPLES = [
    {"vocab_size": 40, "bias": bias, "hashing_key": key} for bias in (2.0, -1.5) for key in (1, 2**50)
]


def oracle(row: OracleRow, greenlist_ratio, bias, hashing_key, vocab_size):
    order = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(hashing_key)).tolist()
    green = order[: int(vocab_size * greenlist_ratio)]
    return [x + bias if token in green else x for token, x in enumerate(row.logits)]


CHECKS = dict(processor_checks(Unigram, examples=EXAMPLES, oracle=oracle))


@pytest.mark.parametrize("name", CHECKS)
def test_conforms(name):
    CHECKS[name]()


def test_the_list_is_the_same_everywhere():
    out = Unigram()(torch.zeros(3, 50), History.of([[1], [2, 3], [4]]))
    assert torch.equal(out, out[:1].expand(3, 50))
    assert out[0].count_nonzero() == 25


def test_a_marked_text_is_found_and_that_of_another_key_is_not():
    mark = Unigram(vocab_size=VOCAB, hashing_key=77)
    marked = texts(8, mark, length=80)
    assert min(mark.detect(text, ignore_repeated_ngrams=False).z for text in marked) > 4
    assert min(mark.detect(text).z for text in marked) > 1.5
    others = [Unigram(vocab_size=VOCAB, hashing_key=key) for key in range(40)]
    wrong = [other.detect(text).z for text in marked for other in others]
    assert abs(statistics.mean(wrong)) < 0.3
    assert max(map(abs, wrong)) < 4


def test_half_of_the_mark_survives_the_loss_of_half_of_the_text():
    mark = Unigram(vocab_size=VOCAB)
    for text in texts(4, mark, length=160):
        assert mark.detect(text[::2], ignore_repeated_ngrams=False).z > 3


def test_the_detector_wants_a_text_and_the_vocabulary():
    with pytest.raises(ParameterError, match="needs at least 1"):
        Unigram(vocab_size=VOCAB).detect([])
    with pytest.raises(ParameterError, match="vocab_size=None"):
        Unigram().detect([1])

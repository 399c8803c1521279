"""Two tokenizers of the same letters: one knows pairs of letters, the other single ones."""

import os

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

LETTERS = "abcd "


def tokenizer_of(pieces, merges):
    vocab = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>")


@pytest.fixture(scope="session")
def pairs():
    """The target's: letters, and the pairs ab, cd."""
    return tokenizer_of(["<s>", "</s>", "a", "b", "c", "d", "Ġ", "ab", "cd"], [("a", "b"), ("c", "d")])


@pytest.fixture(scope="session")
def singles():
    """The assistant's: letters in another order, the pair bc, which the target has not."""
    return tokenizer_of(["Ġ", "d", "c", "b", "a", "bc", "</s>", "<s>"], [("b", "c")])


@pytest.fixture(scope="session")
def profile():
    """How many inputs the kit tries: here few by default, as its own tests try more."""
    return os.environ.get("DECODEKIT_TEST_PROFILE") or "fast"

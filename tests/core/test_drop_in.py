"""Code of others runs through decodekit, and everything is as it was afterwards."""

import threading

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import GenerationConfig, GenerationMixin, PreTrainedTokenizerFast, TextGenerationPipeline

from tests.parity.architectures import inputs_of, model_of

VOCAB = 32
MODEL, OTHER = tiny_llama(VOCAB), tiny_llama(VOCAB)
IDS = torch.tensor([[5, 6, 7]])
THEIRS = GenerationMixin.generate


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    assert GenerationMixin.generate is THEIRS


def ours(result):
    """Only decodekit's outputs have counters."""
    return getattr(result, "stats", None) is not None


def ask(model, **arguments):
    return model.generate(IDS, max_new_tokens=3, return_dict_in_generate=True, **arguments)


def test_every_model_in_the_block_and_none_after_it():
    with dk.drop_in(strategy="beam", num_beams=2):
        assert ask(MODEL).stats.strategy == "beam"
        assert ask(OTHER, strategy="greedy", num_beams=None).stats.strategy == "greedy"
    assert not ours(ask(MODEL))


def test_one_model_and_those_inside_it():
    with dk.drop_in(MODEL, seed=3):
        assert ours(ask(MODEL))
        assert not ours(ask(OTHER))


def test_blocks_nest_and_the_inner_one_decides():
    with dk.drop_in(strategy="greedy"):
        with dk.drop_in(MODEL, strategy="sample"):
            assert ask(MODEL).stats.strategy == "sample"
            assert ask(OTHER).stats.strategy == "greedy"
        assert ask(MODEL).stats.strategy == "greedy"


def test_a_chain_of_the_block_is_the_whole_chain():
    with dk.drop_in(strategy="sample", processors=["min_p"]):
        assert ask(MODEL, temperature=0.7, top_k=5).stats.chains == ("min_p=0.05",)
        config = GenerationConfig(temperature=0.7, suppress_tokens=[5], min_length=9, max_new_tokens=4)
        asked = MODEL.generate(IDS, config, return_dict_in_generate=True)
        assert asked.stats.chains == ("min_p=0.05",)
        assert (config.temperature, config.suppress_tokens) == (0.7, [5])
        with pytest.raises(dk.ParameterError, match="would have no effect"):
            ask(MODEL, temperature=0.7, processors=["top_k"])


def test_other_threads_are_in_the_block_too():
    found = []
    with dk.drop_in():
        thread = threading.Thread(target=lambda: found.append(ask(MODEL)))
        thread.start()
        thread.join()
    assert ours(found[0])


def test_an_error_ends_the_block():
    with pytest.raises(dk.UnknownNameError, match="greedy"), dk.drop_in(strategy="gredy"):
        ask(MODEL)
    assert not ours(ask(MODEL))


def test_no_model_is_named():
    with pytest.raises(dk.ParameterError, match="drop_in got a str as model"), dk.drop_in("beam"):
        pass


def test_a_pipeline_of_transformers():
    words = {f"w{number}": number for number in range(VOCAB)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0", eos_token="w2")
    pipe = TextGenerationPipeline(tiny_llama(VOCAB, dtype=torch.float32), tokenizer)
    arguments = {"max_new_tokens": 5, "do_sample": False, "batch_size": 2}
    expected = pipe(["w5 w6", "w7 w8 w9"], **arguments)
    steps = []
    original = dk.Batch.commit
    with dk.drop_in(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(dk.Batch, "commit", lambda *args, **kw: (steps.append(1), original(*args, **kw)))
        assert pipe(["w5 w6", "w7 w8 w9"], **arguments) == expected
    assert steps


def test_a_model_that_wraps_generate_keeps_its_own_way():
    model, inputs = model_of("blip2"), inputs_of("blip2")
    plain = model.generate(**inputs, max_new_tokens=6)
    assert torch.equal(dk.generate(model, **inputs, max_new_tokens=6), plain)
    seeded = [
        dk.generate(model, **inputs, max_new_tokens=6, do_sample=True, strategy="sample", seed=4)
        for _ in range(2)
    ]
    assert torch.equal(*seeded)


def test_what_has_no_effect_on_a_loop_of_its_own_is_said():
    class Own(type(MODEL)):
        def generate(self, inputs, **kwargs):
            return inputs

    own = Own(MODEL.config)
    assert torch.equal(dk.generate(own, IDS), IDS)
    with pytest.raises(dk.UnsupportedArgumentError, match=r"Own.generate decodes in a loop of its own.*seed"):
        dk.generate(own, IDS, seed=3)

"""What all tests share: Hypothesis profiles with the names of the conformance kit's, and one thread."""

import gc
import os

import attrs
import pytest
import torch
from decodekit import regions
from decodekit.streamed import StreamedLinear
from decodekit.testing import PROFILES
from decodekit.tracing import Traced, state_of
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

for name, examples in PROFILES.items():
    settings.register_profile(name, max_examples=examples, derandomize=True, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("DECODEKIT_TEST_PROFILE") or "default")
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start: the other worker has the other core


def pytest_collection_finish():
    """Keep what the imports have made out of every garbage collection: they are a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A folder with a two-layer Llama in float32 and a tokenizer of bytes, as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("tiny")
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends)
    fast.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    fast.save_pretrained(folder)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"vocab_size": len(fast), "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            **sizes, **ids, num_key_value_heads=1, initializer_range=0.1, tie_word_embeddings=True
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def cuda():
    """The first CUDA device."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and there is none")
    return torch.device("cuda:0")


@pytest.fixture
def interpreted(monkeypatch):
    """Run what would be compiled as it is traced: the same arithmetic, without the minute of a compiler."""

    @attrs.define
    class Interpreted:
        body: Traced
        weights: int

        @property
        def pattern(self):
            return self.body.pattern

        def run(self, inputs):
            room = inputs[-2:] if self.body._call.cache is not None else []
            return self.body(inputs[: self.weights], inputs[self.weights : len(inputs) - len(room)], room)

    def choose(form, hidden, call):
        for part in form._module.modules():
            if isinstance(part, StreamedLinear):
                part.slots = regions.MOST_TOKENS
        return Interpreted(Traced(form._module, call), len(state_of(form._module)))

    monkeypatch.setattr(regions.Form, "_choose", choose)

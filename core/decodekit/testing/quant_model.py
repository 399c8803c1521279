"""The model on which quantization backends are checked, as a folder like any other."""

import atexit
import functools
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["VOCAB_SIZE", "kit_folder", "prompts"]

VOCAB_SIZE = 32


@functools.cache
def kit_folder() -> Path:
    """A two-layer Llama in float32, widths 128 and 256, output layer tied; deleted when the process ends.

    All widths are multiples of 128, as groups of weights want them; one column in sixteen is an outlier,
    as in real models.
    """
    place = tempfile.TemporaryDirectory(prefix="decodekit-kit-")
    atexit.register(place.cleanup)
    folder = Path(place.name)
    words = WordLevel({f"t{index}": index for index in range(VOCAB_SIZE)}, unk_token="t0")
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words)).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCAB_SIZE,
                hidden_size=128,
                intermediate_size=256,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=4,
                initializer_range=0.1,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
    for name, weight in model.named_parameters():
        if "proj" in name:
            weight.data[:, ::16] *= 2
    model.save_pretrained(folder)
    return folder


def prompts(count: int, length: int, seed: int) -> torch.Tensor:
    """Random token ids, int64 [count, length]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB_SIZE, (count, length), generator=generator)

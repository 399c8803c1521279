"""Texts with and without a mark, for the tests of the watermarks."""

import decodekit as dk
import torch
from decodekit.testing.models import tiny_llama

VOCAB = 97
MODEL = tiny_llama(VOCAB, dtype=torch.float32, eos_token_id=None)
PROMPTS = torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13], [14, 15, 16]])


def texts(count, *processors, length=120, **arguments):
    """The generated tokens of ``count`` texts, drawn after the given processors."""
    found = []
    for seed in range(0, count, len(PROMPTS)):
        ids = dk.generate(
            MODEL,
            PROMPTS,
            attention_mask=torch.ones_like(PROMPTS),
            processors=[*processors],
            max_new_tokens=length,
            seed=[seed + i for i in range(len(PROMPTS))],
            **({"strategy": "sample"} | arguments),
        )
        found += ids[:, PROMPTS.shape[1] :].tolist()
    return found[:count]

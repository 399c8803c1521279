"""Against the published interface: ``(input_ids intc [T], scores single [V]) -> single [V]``."""

import numpy as np
import torch
from decodekit.adapters import to_llama_cpp


def test_it_gives_what_the_core_gives(processor, row, expected):
    prompt, tokens, logits = row
    process = to_llama_cpp(processor)
    for step, x in enumerate(logits):
        ids, scores = np.array(prompt + tokens[:step], dtype=np.intc), x.numpy().astype(np.single)
        before = scores.copy()
        out = process(ids, scores)
        assert (out.dtype, out.shape) == (np.single, scores.shape)
        assert np.array_equal(scores, before)
        torch.testing.assert_close(torch.from_numpy(out), expected[step], rtol=0, atol=0)

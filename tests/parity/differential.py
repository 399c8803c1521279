"""Both `decodekit.generate` and ``model.generate`` for one call, and the comparison of what they return."""

import copy

import decodekit as dk
import torch
from decodekit.testing.models import tiny_llama, tiny_mamba, tiny_mistral

VOCAB = 32
MODELS = {
    "llama": tiny_llama(VOCAB, dtype=torch.float32),
    "mistral": tiny_mistral(VOCAB, dtype=torch.float32),
    "mamba": tiny_mamba(VOCAB),
}


def prompts_of(lengths, seed=0):
    """Left-padded ids (pad 0, which no prompt holds) and their mask."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.randint(3, VOCAB, (len(lengths), width), generator=generator)
    mask = torch.tensor([[0] * (width - length) + [1] * length for length in lengths])
    return {"input_ids": ids * mask, "attention_mask": mask}


def both(model, seed=0, **arguments):
    """Both outputs, after checking that the global generator ends in the same state."""
    outputs, states = [], []
    for generate in (model.generate, lambda **kw: dk.generate(model, **kw)):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            outputs.append(generate(**copy.deepcopy(arguments)))
            states.append(torch.random.get_rng_state())
    assert torch.equal(*states), "the global generator was consumed differently"
    return outputs


def assert_same(theirs, ours, width, eos=(2,)):
    assert torch.equal(theirs.sequences, ours.sequences)
    for name in ("scores", "logits"):
        expected, got = getattr(theirs, name), getattr(ours, name)
        assert (expected is None) == (got is None), name
        if expected is None:
            continue
        assert len(expected) == len(got)
        for step, (one, other) in enumerate(zip(expected, got, strict=True)):
            assert one.dtype == other.dtype
            if "beam_indices" in ours:
                ended = (other == -torch.inf).all(1)  # slots whose prompt is decided
            else:
                ended = torch.isin(ours.sequences[:, width : width + step], torch.tensor(eos)).any(1)
            torch.testing.assert_close(other[~ended], one[~ended], atol=1e-4, rtol=1e-4)
    if "beam_indices" in ours:
        assert torch.equal(theirs.beam_indices, ours.beam_indices)
        torch.testing.assert_close(theirs.sequences_scores, ours.sequences_scores, atol=1e-4, rtol=1e-4)
        transitions = [
            MODELS["llama"].compute_transition_scores(out.sequences, out.scores, out.beam_indices)
            for out in (theirs, ours)
        ]
        torch.testing.assert_close(*transitions, atol=1e-4, rtol=1e-4)

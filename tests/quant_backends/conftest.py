"""What the backends' tests share: a tiny model on disk, and how far its logits may move."""

import pytest
import torch
from decodekit.load import load


@pytest.fixture
def logits_of():
    """Logits float32 [2, 9, V] of a model on fixed tokens; the second row repeats no token of the first."""
    tokens = torch.arange(18).view(2, 9)

    def logits(model):
        with torch.inference_mode():
            return model(tokens.to(model.device)).logits.float().cpu()

    return logits


@pytest.fixture
def distance(tiny_folder, logits_of):
    """Relative distance (Frobenius) of a loaded model's logits from those of the unquantized model."""
    reference = logits_of(load(tiny_folder)[0])
    return lambda model: float((logits_of(model) - reference).norm() / reference.norm())

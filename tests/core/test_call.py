"""A call is resolved once, from whatever holds its parts."""

import decodekit as dk
import pytest
import torch
from decodekit.testing.models import tiny_llama

MODEL = tiny_llama(32)
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


class Three:
    """A processor of transformers' kind: token 3 and no other."""

    def __call__(self, input_ids, scores):
        only = torch.full_like(scores, -torch.inf)
        only[:, 3] = 0
        return only


def ends_at_once(input_ids, scores):
    return True


@pytest.mark.parametrize("kind", [list, tuple, iter], ids=lambda kind: kind.__name__)
def test_what_can_only_be_gone_through_once_is_used_all_the_same(kind):
    criteria, processors = kind([ends_at_once]), kind([Three()])
    out = dk.generate(MODEL, IDS, logits_processor=processors, stopping_criteria=criteria, max_new_tokens=4)
    assert out[:, 4:].tolist() == [[3], [3]]

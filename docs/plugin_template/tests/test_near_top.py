"""NearTop: the properties of every processor, and what is its own."""

import decodekit as dk
import torch
from decodekit.testing import parametrize

from decodekit_near_top.near_top import NearTop


@parametrize(NearTop)
def test_conforms(check):
    check()


def test_it_keeps_what_is_near_the_largest_logit():
    logits = torch.tensor([[4.0, 1.0, 3.5], [0.0, 0.0, -9.0]])
    kept = NearTop(width=1.0)(logits, dk.History.of([[0], [1]])).isfinite()
    assert kept.tolist() == [[True, False, True], [True, True, False]]


def test_it_is_installed():
    assert dk.processors()["near_top"].cls is NearTop

"""Rows of a batch by number or by mask, and what happens where there is none of the name."""

import pytest
import torch
from decodekit import PluginError
from decodekit.batch import Batch
from decodekit.chain import Chain
from decodekit.randomness import SeededNoise
from decodekit.row import Row
from decodekit.session import Session
from decodekit.stopping import StopRules
from decodekit.testing.models import CacheHashModel


def two_rows():
    rows = [Row(prompt=place, slot=place, prompt_tokens=[place + 1], seed=place) for place in range(2)]
    stops = StopRules(max_new_tokens=10, eos_token_ids=frozenset([5]))
    return Batch(rows, Session(CacheHashModel(6)), chains=(Chain(),), noise=SeededNoise(), stops=stops)


@pytest.mark.parametrize("named", [torch.tensor([False, True]), [False, True], [1], torch.tensor([1])])
def test_rows_are_named_by_their_numbers_or_by_a_mask(named):
    batch = two_rows()
    batch.prefill()
    p = batch.dist(batch.logits())
    assert torch.equal(p.select(named).scores, p.scores[1:])
    batch.select(named)
    assert [row.prompt for row in batch.rows] == [1]


@pytest.mark.parametrize("named", [[True], [2], [-1], [0.5]])
def test_rows_that_are_not_there_are_named(named):
    batch = two_rows()
    with pytest.raises(PluginError, match="for 2 rows"):
        batch.select(named)


def test_a_session_that_nobody_opened_is_named():
    batch = two_rows()
    with pytest.raises(PluginError, match="no session is called 'nope': 'target'"):
        batch.logits(session="nope")

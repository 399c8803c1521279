"""The largest logits of a row."""

import torch
from decodekit.head import argmax
from hypothesis import given
from hypothesis import strategies as st


@given(
    size=st.sampled_from([3, 127, 128, 20_000, 20_031]),
    kinds=st.sampled_from([2, 50, 10**6]),
    forbidden=st.booleans(),
    seed=st.integers(0, 999),
)
def test_argmax_takes_the_lowest_of_those_that_tie(size, kinds, forbidden, seed):
    x = torch.randint(kinds, (3, size), generator=torch.Generator().manual_seed(seed)).float()
    if forbidden:
        x[x != x.amax(dim=-1, keepdim=True)] = -torch.inf
        x[2] = -torch.inf
    wanted = [row.index(max(row)) for row in x.tolist()]
    assert argmax(x).tolist() == wanted

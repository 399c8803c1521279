"""The largest logits of a row."""

import torch
from decodekit.head import Head, argmax
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


@given(
    step=st.sampled_from([lambda x: x / 0.7, lambda x: x, lambda x: x[...]]),
    rows=st.sampled_from([slice(1, 3), torch.tensor([2, 0])]),
    seed=st.integers(0, 999),
)
def test_the_total_is_that_of_all_tokens_and_touches_nothing(step, rows, seed):
    x = 5 * torch.randn(3, 1_000, generator=torch.Generator().manual_seed(seed))
    before = x.clone()
    head = Head.of(x).select(rows)
    head = head.to(step(head.logits), step)
    total = head.log_total
    assert torch.equal(x, before)
    torch.testing.assert_close(total, step(before[rows]).double().logsumexp(-1, keepdim=True).float())
    torch.testing.assert_close(head.whole, step(before[rows]))


def test_a_step_that_gives_a_view_is_copied():
    x = torch.randn(3, 1_000)
    before = x.clone()
    assert Head.of(x).to(x.topk(64).values, lambda whole: whole.view_as(whole)).log_total.shape == (3, 1)
    assert torch.equal(x, before)


def test_gradients_go_through_the_total_of_a_step_that_keeps_its_result():
    x = torch.randn(3, 1_000, requires_grad=True)
    head = Head.of(x)
    head.to(head.logits.tanh(), torch.tanh).log_total.sum().backward()
    wanted = x.detach().requires_grad_()
    wanted.tanh().logsumexp(-1).sum().backward()
    torch.testing.assert_close(x.grad, wanted.grad)

"""Verification of drafts: pure functions of (p, q, draft), which the strategy then draws from (law 6).

With ``B`` rows, drafts of at most ``K`` tokens and ``V`` tokens in the vocabulary, every rule takes

* ``p`` float64 [B, K + 1, V]: what the target gives after each prefix of the draft,
* ``q`` float64 [B, K, V]: what each token of the draft was drawn from; 0 behind the end of a shorter draft,
* ``drafts`` int64 [B, K]: the tokens, anything behind the end,
* ``counts`` int64 [B]: how many of them there are,

and returns a `Verdict`. The number of tokens of a draft may depend on the tokens themselves, as long as
it is known once the last one is drawn.
"""

from collections.abc import Callable
from typing import NamedTuple

import attrs
import torch
from torch import Tensor

__all__ = ["RULES", "Rule", "Verdict", "block", "choose", "ensemble", "rejection", "typical"]


class Verdict(NamedTuple):
    """What may become of a draft.

    Attributes:
        kept: float64 [B, K + 1], the probability that exactly so many tokens are kept.
        nexts: float64 [B, K + 1, V], the law of the token that follows them.
    """

    kept: Tensor
    nexts: Tensor


def rejection(p: Tensor, q: Tensor, drafts: Tensor, counts: Tensor) -> Verdict:
    """Keep each token with probability min(1, p/q), and draw what follows from the excess of p over q.

    Leviathan et al. (2023), arXiv 2211.17192, algorithm 1; Chen et al. (2023), arXiv 2302.01318.
    """
    accept = _ratios(p, q, drafts, counts).clamp(max=1)
    return Verdict(_first_failure(accept), _normal((p - _behind(q)).clamp(min=0), p))


def block(p: Tensor, q: Tensor, drafts: Tensor, counts: Tensor) -> Verdict:
    """Judge the draft as a whole: never fewer tokens than `rejection` in expectation.

    Sun et al. (2024), arXiv 2403.10444, algorithm 2; ``c`` is their p_i and ``h`` their h_i, both for
    the prefix of i tokens.
    """
    ratios = _ratios(p, q, drafts, counts)
    c = [torch.ones_like(p[:, 0, 0])]
    for ratio in ratios.unbind(1):
        c.append((c[-1] * ratio).clamp(max=1))
    weight = torch.stack(c, dim=1)
    excess = (weight[:, :, None] * p - _behind(q)).clamp(min=0)
    total = excess.sum(-1)
    h = torch.where(total + 1 - weight > 0, total / (total + 1 - weight).clamp(min=1e-300), 1.0)
    h = h.masked_fill(torch.arange(p.shape[1], device=p.device) > counts[:, None], 0.0)
    h[:, 0] = 1.0
    later = (1 - h).flip(1).cumprod(1).flip(1)  # that this prefix and all longer ones fail
    beyond = torch.cat([later[:, 1:], torch.ones_like(later[:, :1])], dim=1)
    return Verdict(h * beyond, _normal(excess, p))


def typical(p: Tensor, q: Tensor, drafts: Tensor, counts: Tensor, *, epsilon: float, delta: float) -> Verdict:
    """Keep a token that is likely enough: p > min(epsilon, delta exp(-H(p))). Lossy.

    Cai et al. (2024), arXiv 2401.10774, section 2.3.1.
    """
    heads = p[:, :-1]
    entropy = -torch.special.xlogy(heads, heads).sum(-1)
    least = (delta * (-entropy).exp()).clamp(max=epsilon)
    inside = torch.arange(heads.shape[1], device=p.device) < counts[:, None]
    accept = (heads.gather(2, drafts[:, :, None])[:, :, 0] > least) & inside
    return Verdict(_first_failure(accept.to(p.dtype)), p)


def ensemble(p: Tensor, q: Tensor, drafts: Tensor, counts: Tensor, *, weight: float) -> Verdict:
    """`rejection` against the mixture ``weight`` p + (1 - ``weight``) q. Lossy.

    arXiv 2604.07622, as transformers has it: after a draft that was right, the next token is p's.
    """
    q = _behind(q)
    drafted = torch.arange(p.shape[1], device=p.device) < counts[:, None]
    mixed = torch.where(drafted[:, :, None], weight * p + (1 - weight) * q, p)
    return rejection(mixed, q[:, :-1], drafts, counts)


def choose(kept: Tensor, u: Tensor) -> Tensor:
    """How many tokens are kept, int64 [B], by inversion of ``kept`` [B, K + 1] at ``u`` in [0, 1).

    A number of probability 0 is never chosen, whatever ``u`` is.
    """
    below = (kept.cumsum(1) <= u.to(kept)[:, None]).sum(1)
    places = torch.arange(kept.shape[1], device=kept.device)
    last = (places * (kept > 0)).amax(1)  # rounding may leave the sum below u
    return torch.minimum(below, last)


def _ratios(p: Tensor, q: Tensor, drafts: Tensor, counts: Tensor) -> Tensor:
    """p(x) / q(x) of each drafted token, [B, K]; 0 behind the end of a draft."""
    index = drafts[:, :, None]
    p_x, q_x = p[:, :-1].gather(2, index)[:, :, 0], q.gather(2, index)[:, :, 0]
    inside = torch.arange(drafts.shape[1], device=p.device) < counts[:, None]
    return torch.where(inside, p_x / torch.where(q_x > 0, q_x, 1.0), 0.0)


def _first_failure(accept: Tensor) -> Tensor:
    """The probability [B, K + 1] that the first ``n`` are accepted and the next is not."""
    one = torch.ones_like(accept[:, :1]) if accept.shape[1] else accept.new_ones(accept.shape[0], 1)
    reached = torch.cat([one, accept.cumprod(1)], dim=1)
    return reached * (1 - torch.cat([accept, torch.zeros_like(one)], dim=1))


def _behind(q: Tensor) -> Tensor:
    """``q`` [B, K + 1, V], with nothing drafted in the last column."""
    return torch.cat([q, q.new_zeros(q.shape[0], 1, q.shape[2])], dim=1)


def _normal(weights: Tensor, fallback: Tensor) -> Tensor:
    """Probabilities from weights; where there are none (p is q, and nothing is rejected), the fallback."""
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights / total.clamp(min=1e-300), fallback)


@attrs.frozen
class Rule:
    """A verification rule and what is known of it."""

    verdict: Callable[..., Verdict]
    lossless: bool = True
    needs_q: bool = False
    options: tuple[str, ...] = ()


RULES: dict[str, Rule] = {
    "rejection": Rule(rejection),
    "block": Rule(block),
    "typical": Rule(typical, lossless=False, options=("epsilon", "delta")),
    "ensemble": Rule(ensemble, lossless=False, needs_q=True, options=("weight",)),
}
"""All rules but ``coupled``, which needs no verdict: it draws what plain decoding draws."""

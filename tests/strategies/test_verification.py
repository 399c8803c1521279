"""The rules of verification, enumerated exactly on pairs of Markov tables."""

import functools
import itertools
import math

import pytest
import torch
from decodekit import CallContext, History
from decodekit.randomness import race
from decodekit_processors.min_new_tokens import MinNewTokens
from decodekit_processors.repetition_penalty import RepetitionPenalty
from decodekit_processors.temperature import Temperature
from decodekit_processors.top_p import TopP
from decodekit_strategies._verification import RULES, block, choose, ensemble, rejection, typical
from hypothesis import given
from hypothesis import strategies as st

VOCAB = 3
DTYPE = torch.float64


def alone(p, q, draft):
    """A rule's arguments for one row: p [K + 1][V], q [K][V]."""
    p, q = torch.tensor(p, dtype=DTYPE), torch.tensor(q, dtype=DTYPE).view(len(draft), len(p[0]))
    return p[None], q[None], torch.tensor([draft]).view(1, -1).long(), torch.tensor([len(draft)])


def random_table(seed, sharp=2.0, zeros=0.0):
    """Logits [V, V] of the next token after the last one; some of them impossible."""
    generator = torch.Generator().manual_seed(seed)
    table = sharp * torch.randn(VOCAB, VOCAB, generator=generator, dtype=DTYPE)
    holes = torch.rand(VOCAB, VOCAB, generator=generator) < zeros
    holes[torch.arange(VOCAB), torch.randint(VOCAB, (VOCAB,), generator=generator)] = False
    return table.masked_fill(holes, -torch.inf)


class Alternating:
    """A grammar: a token may not follow itself."""

    def __call__(self, logits, history):
        same = torch.nn.functional.one_hot(history.tokens[:, -1], logits.shape[-1]).bool()
        return logits.masked_fill(same, -torch.inf)


CHAINS = {
    "none": (),
    "temperature": (Temperature(0.6),),
    "top_p": (TopP(0.8),),
    "repetition_penalty": (RepetitionPenalty(1.7),),
    "min_new_tokens": (MinNewTokens(2).bind(CallContext(vocab_size=VOCAB, eos_token_ids=(2,))),),
    "grammar": (Alternating(),),
}


def law_of(table, chain):
    """(text) -> probabilities [V] of the next token, after the chain."""

    @functools.cache
    def law(text):
        scores = table[text[-1]][None].clone()
        history = History.of([list(text[:1])], [list(text[1:])])
        for processor in chain:
            scores = processor(scores, history)
        return scores.softmax(-1)[0].tolist()

    return law


def decoded(rule, target, drafter, length, wanted, *, certain=False, stops_at=None):
    """The law of the first ``wanted`` tokens that speculation writes after token 0."""

    @functools.cache
    def steps(text):
        """What one step may write after a text, and how probable that is."""
        found = {}
        for draft, chance, q in drafts_after(text, drafter, length, certain, stops_at):
            p = [target((*text, *draft[:n])) for n in range(len(draft) + 1)]
            kept, nexts = rule(*alone(p, q, draft))
            shares = (chance * kept[0, :, None] * nexts[0]).tolist()
            for n, token in itertools.product(range(len(draft) + 1), range(VOCAB)):
                written = (*draft[:n], token)
                found[written] = found.get(written, 0.0) + shares[n][token]
        return {written: share for written, share in found.items() if share}

    law, texts = {}, {(0,): 1.0}
    while texts:
        longer = {}
        for text, weight in texts.items():
            for written, share in steps(text).items():
                whole = (*text, *written)[: wanted + 1]
                into = law if len(whole) > wanted else longer
                key = whole[1:] if into is law else whole
                into[key] = into.get(key, 0.0) + weight * share
        texts = longer
    return law


def drafts_after(text, drafter, length, certain, stops_at):
    """Every draft, its probability, and what its tokens were drawn from."""
    found = [((), 1.0, [])]
    for _ in range(length):
        longer = []
        for draft, chance, q in found:
            law = drafter((*text, *draft))
            if len(draft) < len(q) or (draft and draft[-1] == stops_at):
                longer.append((draft, chance, q))
                continue
            if certain:
                best = max(range(VOCAB), key=law.__getitem__)
                law = [float(token == best) for token in range(VOCAB)]
            longer += [((*draft, x), chance * law[x], [*q, law]) for x in range(VOCAB) if law[x]]
        found = longer
    return found


def plain(target, wanted):
    law = {}
    for text in itertools.product(range(VOCAB), repeat=wanted):
        law[text] = math.prod(target((0, *text[:n]))[text[n]] for n in range(wanted))
    return law


def distance(one, other):
    return max(abs(one.get(text, 0.0) - other.get(text, 0.0)) for text in {*one, *other})


@pytest.mark.parametrize("certain", [False, True], ids=["drawn", "certain"])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("length", [0, 1, 2, 3])
@pytest.mark.parametrize("rule", [name for name in RULES if RULES[name].lossless])
def test_a_lossless_rule_gives_the_law_of_plain_sampling(rule, length, chain, certain):
    target = law_of(random_table(1), CHAINS[chain])
    drafter = law_of(random_table(2, zeros=0.3), CHAINS[chain])
    found = decoded(RULES[rule].verdict, target, drafter, length, 4 if length < 3 else 3, certain=certain)
    assert distance(found, plain(target, 4 if length < 3 else 3)) < 1e-12


@pytest.mark.parametrize("rule", [name for name in RULES if RULES[name].lossless])
def test_a_draft_may_end_because_of_its_last_token(rule):
    target, drafter = law_of(random_table(5), ()), law_of(random_table(6), ())
    found = decoded(RULES[rule].verdict, target, drafter, 3, 3, stops_at=1)
    assert distance(found, plain(target, 3)) < 1e-12


@pytest.mark.parametrize(
    "rule",
    [
        lambda *a: typical(*a, epsilon=0.3, delta=0.5),
        lambda *a: ensemble(*a, weight=0.6),
        lambda p, q, drafts, counts: rejection(p, q * 0.9, drafts, counts),
    ],
    ids=["typical", "ensemble", "a wrong q"],
)
def test_the_enumeration_sees_what_is_not_lossless(rule):
    target, drafter = law_of(random_table(1), ()), law_of(random_table(2), ())
    assert distance(decoded(rule, target, drafter, 2, 3), plain(target, 3)) > 1e-3


def test_the_ensemble_has_the_law_of_the_mixture_where_it_drafts():
    p, q = law_of(random_table(1), ())((0,)), law_of(random_table(2), ())((0,))
    law = [0.0] * VOCAB
    for x in range(VOCAB):
        kept, nexts = ensemble(*alone([p, p], [q], [x]), weight=0.6)
        law[x] += q[x] * float(kept[0, 1])
        law = [law[y] + q[x] * float(kept[0, 0] * nexts[0, 0, y]) for y in range(VOCAB)]
    assert law == pytest.approx([0.6 * a + 0.4 * b for a, b in zip(p, q, strict=True)], abs=1e-12)


TWO_THIRDS = [1 / 3, 2 / 3]
"""The toy of arXiv 2403.10444, section 2: p is (1/3, 2/3) and q (2/3, 1/3), whatever stands before."""


def mean_tokens(rule, p, q, length):
    """The expected number of accepted draft tokens, context-free."""
    mean = 0.0
    for draft in itertools.product(range(len(p)), repeat=length):
        kept, _ = rule(*alone([p] * (length + 1), [q] * length, draft))
        mean += math.prod(q[x] for x in draft) * sum(n * float(share) for n, share in enumerate(kept[0]))
    return mean


def test_block_verification_of_the_papers_toy_accepts_eleven_ninths_instead_of_ten():
    p, q = TWO_THIRDS, TWO_THIRDS[::-1]
    assert mean_tokens(rejection, p, q, 2) == pytest.approx(10 / 9, abs=1e-12)
    assert mean_tokens(block, p, q, 2) == pytest.approx(11 / 9, abs=1e-12)


laws = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda w: [x / sum(w) for x in w])


@given(p=laws, q=laws, length=st.integers(1, 4))
def test_acceptance_is_one_minus_the_total_variation_and_tokens_follow_from_it(p, q, length):
    a = sum(map(min, p, q))
    assert mean_tokens(rejection, p, q, 1) == pytest.approx(a, abs=1e-12)
    assert a == pytest.approx(1 - sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2, abs=1e-12)
    tokens = 1 + mean_tokens(rejection, p, q, length)
    assert tokens == pytest.approx((1 - a ** (length + 1)) / (1 - a) if a < 1 else length + 1, abs=1e-9)


@given(seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)), length=st.integers(1, 3))
def test_block_verification_never_accepts_fewer(seeds, length):
    target, drafter = (law_of(random_table(seed), ()) for seed in seeds)
    means = []
    for rule in (rejection, block):
        mean = 0.0
        for draft, chance, q in drafts_after((0,), drafter, length, False, None):
            p = [target((0, *draft[:n])) for n in range(length + 1)]
            kept, _ = rule(*alone(p, q, draft))
            mean += chance * sum(n * float(share) for n, share in enumerate(kept[0]))
        means.append(mean)
    assert means[1] >= means[0] - 1e-12


@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_equal_laws_keep_everything_and_disjoint_ones_nothing(rule):
    p = [0.2, 0.8, 0.0]
    kept, _ = RULES[rule].verdict(*alone([p] * 3, [p] * 2, [1, 0]))
    assert kept[0].tolist() == pytest.approx([0, 0, 1], abs=1e-15)
    kept, nexts = RULES[rule].verdict(*alone([p] * 3, [[0, 0, 1.0]] * 2, [2, 2]))
    assert kept[0].tolist() == [1, 0, 0]
    assert nexts[0, 0].tolist() == pytest.approx(p)
    assert torch.isfinite(nexts).all()


@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_a_draft_of_probability_zero_is_not_kept_even_when_the_uniform_is_zero(rule):
    kept, _ = RULES[rule].verdict(*alone([[0.0, 1.0]] * 2, [[0.5, 0.5]], [0]))
    assert choose(kept, torch.zeros(1, dtype=DTYPE)).tolist() == [0]


@given(
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda w: sum(w) > 0.01),
    u=st.sampled_from([0.0, 2**-54, 0.3, 0.5, 1 - 2**-53]),
)
def test_choice_by_inversion_never_takes_what_is_impossible(weights, u):
    kept = torch.tensor([[weight / sum(weights) for weight in weights]], dtype=DTYPE)
    n = int(choose(kept, torch.tensor([u], dtype=DTYPE)))
    assert kept[0, n] > 0
    assert float(kept[0, :n].sum()) <= u or kept[0, n:].count_nonzero() == 1
    assert u < float(kept[0, : n + 1].sum()) or not kept[0, n + 1 :].any()


@given(counts=st.lists(st.integers(0, 3), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_rows_of_different_lengths_are_judged_alone(counts, seed):
    generator = torch.Generator().manual_seed(seed)
    rows, longest = len(counts), max(counts)
    p = torch.randn(rows, longest + 1, VOCAB, generator=generator, dtype=DTYPE).softmax(-1)
    q = torch.randn(rows, longest, VOCAB, generator=generator, dtype=DTYPE).softmax(-1)
    drafts = torch.randint(VOCAB, (rows, longest), generator=generator)
    q = q.masked_fill((torch.arange(longest) >= torch.tensor(counts)[:, None])[:, :, None], 0.0)
    options = {"epsilon": 0.3, "delta": 0.4, "weight": 0.5}
    for rule in RULES.values():
        mine = {name: options[name] for name in rule.options}
        together = rule.verdict(p, q, drafts, torch.tensor(counts), **mine)
        for row, count in enumerate(counts):
            one = slice(row, row + 1)
            arguments = p[one, : count + 1], q[one, :count], drafts[one, :count], torch.tensor([count])
            single = rule.verdict(*arguments, **mine)
            torch.testing.assert_close(together.kept[one, : count + 1], single.kept)
            torch.testing.assert_close(together.nexts[one, : count + 1], single.nexts)
            assert not together.kept[row, count + 1 :].any()


def test_coupled_acceptance_of_a_certain_draft_is_that_of_rejection():
    """The race draws token x with probability p(x), which is what rejection keeps of a certain draft."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=DTYPE)
    noise = -torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=DTYPE).log()
    drawn = race(p.log().expand(len(noise), -1), noise)
    kept, _ = rejection(*alone([p.tolist()] * 2, [[0.0, 1.0, 0.0]], [1]))
    assert float((drawn == 1).double().mean()) == pytest.approx(float(kept[0, 1]), abs=0.004)

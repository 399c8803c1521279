"""Assisted decoding under drafters that mean no good, and its laws through the whole stack."""

import gc
import itertools
import weakref
from typing import ClassVar

import attrs
import decodekit as dk
import pytest
import torch
from decodekit.testing.models import CacheHashModel, tiny_llama
from decodekit_strategies._economics import Costs, Economics, expected_tokens
from decodekit_strategies.drafters._autoregressive import decode_drafts
from decodekit_strategies.drafters.draft_model import DraftModel

VOCAB, EOS = 6, 5
SPECIAL = {"eos_token_id": EOS, "pad_token_id": 0}
MODEL = CacheHashModel(VOCAB, **SPECIAL)
INPUTS = {
    "input_ids": torch.tensor([[0, 0, 1], [1, 2, 3], [0, 4, 1]]),
    "attention_mask": torch.tensor([[0, 0, 1], [1, 1, 1], [0, 1, 1]]),
}
WIDTH = 3


@attrs.frozen
class Scripted(dk.Drafter):
    """Drafts what a function of the row says, cut to the length that was asked for."""

    NAME: ClassVar[str] = "scripted"
    say: object = dk.param(help="(row) -> tokens.")
    cut: bool = dk.param(True, help="Keep to the length.")

    def draft(self, batch, lengths, pick):
        said = [list(self.say(row)) for row in batch.rows]
        return dk.Draft(
            [block[:most] if self.cut else block for block, most in zip(said, lengths, strict=True)]
        )


ADVERSARIES = {
    "always the same": lambda row: [3] * 4,
    "nothing": lambda row: [],
    "one row only": lambda row: [1, 2] if row.slot == 1 else [],
    "impossible tokens": lambda row: [4, 4, 4],
    "the end in the middle": lambda row: [2, EOS, 3, EOS],
    "the end at once": lambda row: [EOS, 1],
    "noise": lambda row: [(7 * row.length + 3 * k) % VOCAB for k in range(4)],
}
CHAINS = {"plain": {}, "suppressed": {"suppress_tokens": [4]}, "least": {"min_new_tokens": 4}}


def run(model=MODEL, **arguments):
    arguments = {"do_sample": True, "seed": [1, 2, 3], "max_new_tokens": 12, **arguments}
    return dk.generate(model, **INPUTS, return_dict_in_generate=True, **arguments)


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("name", ADVERSARIES)
def test_whatever_is_drafted_the_tokens_are_plain_decodings(name, chain, adaptive):
    assisted = {"strategy": "assisted", "drafter": Scripted(ADVERSARIES[name]), "adaptive": adaptive}
    plain, fast = run(**CHAINS[chain]), run(**CHAINS[chain], **assisted)
    assert torch.equal(fast.sequences, plain.sequences)
    assert fast.finish_reasons == plain.finish_reasons
    assert fast.stats.forward_passes <= 1 + 12
    for row in fast.stats.rows:
        assert row.accepted <= row.drafted
        assert row.steps <= row.new_tokens
        assert row.tokens_per_step >= 1


@pytest.mark.parametrize("rule", ["rejection", "block", "typical"])
@pytest.mark.parametrize("name", ADVERSARIES)
def test_under_every_rule_rows_end_and_impossible_tokens_stay_out(name, rule):
    assisted = {"strategy": "assisted", "drafter": Scripted(ADVERSARIES[name]), "verification": rule}
    output = run(**CHAINS["suppressed"], **assisted)
    assert 4 not in output.sequences[:, WIDTH:]
    assert output.stats.forward_passes <= 1 + 12
    for row, reason in zip(output.sequences[:, WIDTH:].tolist(), output.finish_reasons, strict=True):
        assert reason == "eos" or (EOS not in row and len(row) == 12)
    assert torch.equal(output.sequences, run(**CHAINS["suppressed"], **assisted).sequences)


class Draws(DraftModel):
    """A draft model that spoils what it reports."""

    __slots__ = ()

    def draft(self, batch, lengths, pick):
        draft = super().draft(batch, lengths, pick)
        return self.spoil(draft)


SMALL = tiny_llama(VOCAB, seed=9, **SPECIAL)


def spoiled(change):
    return type("Spoiled", (Draws,), {"spoil": staticmethod(change), "__slots__": ()})(SMALL, 0.0)


def with_scores(draft, change):
    return dk.Draft(draft.tokens, [attrs.evolve(q, columns=change(q.scores)) for q in draft.q])


BROKEN = {
    "too long": (Scripted(lambda row: [1] * 50, cut=False), "drafted 50 tokens for row 0, and at most"),
    "no token": (Scripted(lambda row: [VOCAB]), r"tokens are ids, Python ints in \[0, 6\)"),
    "no int": (Scripted(lambda row: [1.5]), "tokens are ids"),
    "too few rows": (spoiled(lambda draft: dk.Draft(draft.tokens[:1], draft.q)), "drafted for 1 rows"),
    "NaN": (
        spoiled(lambda draft: with_scores(draft, lambda scores: scores * torch.nan)),
        "gives the log-probability nan",
    ),
    "probability 0": (
        spoiled(
            lambda draft: with_scores(
                draft, lambda scores: scores.scatter(1, scores.argmax(1)[:, None], 0).fill_(-torch.inf)
            )
        ),
        "gives the log-probability",
    ),
    "another shape": (
        spoiled(lambda draft: with_scores(draft, lambda scores: scores[:1])),
        r"gave q of shape \[1, 6\]",
    ),
    "no q": (spoiled(lambda draft: dk.Draft(draft.tokens)), "reports no q"),
    "too few q": (spoiled(lambda draft: dk.Draft(draft.tokens, draft.q[:1])), "gave 1 distributions"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_drafter_that_breaks_its_contract_is_named(name):
    drafter, match = BROKEN[name]
    with pytest.raises(dk.PluginError, match=f"drafter '.*' .*{match}"):
        run(strategy="assisted", drafter=drafter, verification="rejection", num_assistant_tokens=3)


TARGET = tiny_llama(VOCAB, seed=3, eos_token_id=None, pad_token_id=0)
CHAIN = {"temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.2}
COPIES, NEW = 1500, 3


def sequence_laws():
    """For each prompt the probability of every continuation of NEW tokens, by plain decoding."""
    texts = torch.tensor(list(itertools.product(range(VOCAB), repeat=NEW)))
    laws = []
    for ids, mask in zip(*INPUTS.values(), strict=True):
        prompt = ids[mask.bool()]
        forced = iter(texts.T)

        class Forced(dk.Strategy):
            NAME = "forced"
            SAMPLES = True

            def step(self, batch, forced=forced):
                batch.commit(next(forced), batch.dist(batch.logits()))  # called in this turn

        output = dk.generate(
            TARGET,
            input_ids=prompt.expand(len(texts), -1),
            strategy=Forced(),
            top_k=0,
            max_new_tokens=NEW,
            return_dict_in_generate=True,
            **CHAIN,
        )
        laws.append(output.token_logprobs.sum(1).exp())
    return torch.stack(laws)


def chi_square(counts, law):
    """The p-value of counts under a law; cells that expect less than five count as one."""
    expected = law * counts.sum()
    small = expected < 5
    observed = torch.cat([counts[~small], counts[small].sum()[None]])
    expected = torch.cat([expected[~small], expected[small].sum()[None]])
    keep = expected > 0
    statistic = ((observed - expected)[keep] ** 2 / expected[keep]).sum()
    return float(torch.special.gammaincc((keep.sum() - 1).double() / 2, statistic / 2))


def p_values(drafter, **arguments):
    output = dk.generate(
        TARGET,
        **INPUTS,
        **CHAIN,
        top_k=0,
        do_sample=True,
        seed=11,
        num_return_sequences=COPIES,
        max_new_tokens=NEW,
        strategy="assisted",
        drafter=drafter,
        num_assistant_tokens=2,
        return_dict_in_generate=True,
        **arguments,
    )
    assert 0 < output.stats.accepted < output.stats.drafted
    index = (output.sequences[:, WIDTH:] * VOCAB ** torch.arange(NEW - 1, -1, -1)).sum(1).view(3, COPIES)
    counts = torch.stack([row.bincount(minlength=VOCAB**NEW).double() for row in index])
    return [chi_square(row, law) for row, law in zip(counts, sequence_laws(), strict=True)]


@pytest.mark.parametrize("drafter", [DraftModel(SMALL, 0.3), "prompt_lookup"], ids=["model", "lookup"])
@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_through_the_whole_stack_the_law_is_plain_samplings(rule, drafter):
    assert min(p_values(drafter, verification=rule)) > 1e-6


@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_the_statistics_see_a_q_that_was_not_drawn_from(rule):
    liar = spoiled(lambda draft: with_scores(draft, lambda scores: scores * 0.2))
    assert min(p_values(liar, verification=rule)) < 1e-12


class Alternating(dk.StatefulProcessor[int]):
    """A grammar: 1 2 3 and then anything, over and over; its state is the place in that."""

    NAME: ClassVar[str] = "alternating"

    def init(self, prompt):
        return 0

    def advance(self, state, token, logits):
        assert state == 3 or token == state + 1, "a token came that was not allowed"
        return (state + 1) % 4

    def forced(self, state):
        return [1, 2, 3][state:] if state < 3 else []

    def process(self, logits, history, states):
        allowed = [
            torch.ones(VOCAB).bool() if state == 3 else torch.arange(VOCAB) == state + 1 for state in states
        ]
        return logits.masked_fill(~torch.stack(allowed), -torch.inf)


@pytest.mark.parametrize(
    "drafter", [Scripted(lambda row: []), Scripted(lambda row: [4, 1, 2, 3])], ids=["none", "bad"]
)
def test_forced_tokens_are_free_drafts_and_a_grammar_never_sees_a_forbidden_token(drafter):
    model = CacheHashModel(VOCAB, eos_token_id=None, pad_token_id=0)
    arguments = {"processors": [Alternating()], "max_new_tokens": 16}
    plain = run(model, **arguments)
    fast = run(model, strategy="assisted", drafter=drafter, **arguments)
    assert torch.equal(fast.sequences, plain.sequences)
    assert fast.stats.forward_passes <= 1 + 3 * 4
    for rule in ("rejection", "block"):
        run(model, strategy="assisted", drafter=drafter, verification=rule, **arguments)


def test_a_new_draft_has_noise_of_its_own():
    """What stands behind a rejected token must not be drawn again with the noise that the rule has seen."""
    seen = {}

    class Spy(DraftModel):
        __slots__ = ()

        def draft(self, batch, lengths, pick):
            flat = torch.zeros(len(lengths), VOCAB)
            draft = decode_drafts(batch, lengths, pick, 0.0, lambda drafts: flat)
            for row, block in zip(batch.rows, draft.tokens, strict=True):
                for offset, token in enumerate(block):
                    seen.setdefault((row.slot, row.length + offset), []).append(token)
            return draft

    run(strategy="assisted", drafter=Spy(SMALL), verification="block", num_assistant_tokens=5)
    again = [tokens for tokens in seen.values() if len(tokens) > 1]
    assert any(len(set(tokens)) > 1 for tokens in again)


def test_lossy_rules_are_declared_so():
    lossy = dk.strategies()["assisted"].cls(drafter="prompt_lookup", do_sample=True, verification="typical")
    assert not lossy.laws.lossless
    assert run(strategy=lossy).stats.details["lossless"] is False
    assert run(strategy="assisted", drafter="prompt_lookup").stats.details["lossless"] is True


def test_an_ensembles_weight_selects_its_rule():
    output = run(TARGET, assistant_model=SMALL, assistant_ensemble_weight=0.5)
    assert output.stats.details["verification"] == "ensemble"
    assert output.stats.details["lossless"] is False


def test_costs_lie_on_lines_between_what_was_measured():
    costs = Costs()
    assert costs.at(3) == 0
    costs.add(1, 2.0)
    assert costs.at(0) == costs.at(5) == 2.0
    costs.add(5, 4.0)
    assert (costs.at(0), costs.at(3), costs.at(7)) == (2.0, 3.0, 5.0)
    for slow in (90.0, 4.0):  # one that was disturbed
        costs.add(5, slow)
    assert costs.at(5) == 4.0
    costs.add(3, 1.0)
    assert [costs.at(length) for length in range(1, 8)] == [2.0, 1.5, 1.0, 2.5, 4.0, 4.5, 5.0]


def simulated(rate, seconds, steps, most=8):
    """Seconds a token of a single row whose drafts are right with ``rate``, and of plain decoding."""
    economics, spent, tokens = Economics(), 0.0, 0.0
    for _ in range(steps):
        drafted = economics.advise([rate], [most], [10_000])
        speed = expected_tokens(rate, drafted)
        economics.note(drafted, 0.0, seconds(drafted), speed)
        spent, tokens = spent + seconds(drafted), tokens + speed
    return spent / tokens, seconds(0)


def test_drafts_that_do_not_pay_cost_less_than_five_percent():
    spent, plain = simulated(0.1, lambda drafted: 1.7 + 0.1 * drafted if drafted else 1.0, 60)
    assert spent <= 1.05 * plain


def test_drafts_that_pay_are_made():
    spent, plain = simulated(0.9, lambda drafted: 1.0 + 0.05 * drafted, 60)
    assert spent <= 0.3 * plain


def test_a_draft_fills_the_pass_it_takes_anyway():
    """Kernels have sizes: 8 drafted tokens and the one before take the time of 16, and 7 the time of 8."""
    economics = Economics(filled=lambda drafted: (1 << drafted.bit_length()) - 1)
    economics.note(0, 0.0, 1.0, 1.0)
    economics.note(8, 0.0, 5.0, 8.0)
    assert economics.advise([0.95], [8], [50]) == 7
    economics.note(7, 0.0, 4.9, 8.0)
    assert economics.advise([0.95], [8], [50]) == 8


def test_two_passes_of_chance_do_not_make_long_drafts_free():
    economics = Economics()
    economics.note(8, 0.0, 1.3, 5.0)
    economics.note(7, 0.0, 1.5, 5.0)
    assert economics.advise([0.5], [32], [1_000]) <= 8


def test_measured_passes_count_before_a_plain_one_is_known():
    economics = Economics()
    economics.note(8, 0.0, 1.0, 9.0)
    economics.note(24, 0.0, 9.0, 25.0)  # beyond what kernels take
    assert economics.advise([0.99], [24], [1_000]) == 8


def test_what_passes_of_more_rows_took_is_forgotten():
    economics = Economics(filled=lambda drafted: drafted)
    first = economics.advise([0.9], [8], [50])
    economics.note(0, 0.0, 1.0, 1.0)
    economics.note(8, 0.0, 90.0, 9.0)
    assert economics.advise([0.9], [8], [50]) == 0
    economics.forget()
    assert economics.advise([0.9], [8], [50]) == first > 0


def test_a_row_that_gains_nothing_does_not_wait_for_the_others():
    economics = Economics()
    for drafted, seconds in ((0, 1.0), (8, 2.0)):
        economics.note(drafted, 0.0, seconds, 1.0)
    assert economics.advise([0.95, 0.95], [8, 8], [50, 50]) == 8
    assert economics.advise([0.95, 0.05], [8, 8], [50, 50]) == 0


@pytest.mark.parametrize(("compiled", "first", "most"), [(True, 15, 15), (False, 8, 32)])
def test_a_draft_that_costs_nothing_fills_its_kernel_and_keeps_no_cache_alive(
    interpreted, compiled, first, most
):
    """8 drafted tokens and the one before them need the kernel of 16, and no larger one is made for them."""

    class Drafter:
        def draft(self, batch, lengths, pick):
            asked.extend(lengths)
            self.session = weakref.ref(batch.target)
            return [[5] * length for length in lengths]

    asked, model, drafter = [], tiny_llama(), Drafter()
    call = {"drafter": drafter, "num_assistant_tokens": 8, "max_new_tokens": 40, "pad_token_id": 0}
    gc.collect()
    gc.disable()
    try:
        dk.generate(model, torch.tensor([[3, 4, 5]]), strategy="assisted", compile=compiled, **call)
        assert drafter.session() is None
    finally:
        gc.enable()
    assert (asked[0], max(asked)) == (first, most)


def test_a_draft_model_that_is_none_is_named():
    with pytest.raises(dk.ParameterError, match="draft model of strategy='assisted' is a str: it must be"):
        dk.generate(
            MODEL, **INPUTS, strategy="assisted", drafter=("draft_model", {"model": "x"}), max_new_tokens=2
        )

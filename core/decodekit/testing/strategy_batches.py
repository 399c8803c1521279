"""S6 to S11, S15, S37: what a row may not notice of the batch, its padding, its cache and its seed."""

import re
from typing import TYPE_CHECKING, Any

import attrs
import torch
from hypothesis import strategies as st

from decodekit.errors import NonFiniteLogitsError
from decodekit.row import Row
from decodekit.testing.check import Draw, check
from decodekit.testing.models import MarkovModel
from decodekit.testing.strategy_case import Case, around, expect, expect_same
from decodekit.testing.strategy_models import CACHED, KitModel
from decodekit.testing.strategy_reference import full_logits
from decodekit.testing.strategy_subject import StrategySubject, without_draws

if TYPE_CHECKING:
    from decodekit.batch import Batch

__all__ = ["CHECKS"]


@check("S6", share=0.5)
def batch_invariance(subject: StrategySubject, draw: Draw) -> None:
    """A row of a ragged batch is what it is alone."""
    case = draw(subject.cases(least_prompts=2))
    rows = case.run()
    for place in range(len(case.prompts)):
        own = [row for row in rows if row.prompt == place]
        expect_same(case, own, case.take([place]).run(), "alone")


@check("S7", share=0.6)
def batch_order(subject: StrategySubject, draw: Draw) -> None:
    """Reordering the prompts, of which some end early, reorders the result."""
    case = draw(subject.cases(least_prompts=2))
    end = draw(st.integers(0, case.model.vocab_size - 1))
    case = attrs.evolve(case, eos=tuple({*case.eos, end}))
    order = draw(st.permutations(range(len(case.prompts))))
    rows, reordered = case.run(), case.take(order).run()
    own = [row for place in order for row in rows if row.prompt == place]
    expect_same(case, own, reordered, f"in the order {order}")


@check("S8", skip=without_draws, share=0.25)
def seeds(subject: StrategySubject, draw: Draw) -> None:
    """Tokens follow from prompt and seed; another seed, and another row of one prompt, draws anew."""
    size = draw(st.integers(6, 9))
    model = KitModel(f"Markov of equal logits, {size} tokens", MarkovModel(torch.zeros(size, size)), size)
    prompt = draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=3))
    case = Case(
        strategy=draw(subject.strategies()),
        model=model,
        prompts=[prompt] * 3,
        seeds=[4, draw(st.integers(-9, 3)), 4],
        max_new_tokens=24,
        copies=2,
    )
    (first, second), (other, _), (same, _) = (
        [row.tokens for row in rows] for rows in _by_prompt(case.run(), copies=2)
    )
    expect(first == same, case, f"one prompt with one seed gave {first} and {same}")
    expect(first != other, case, f"seeds {case.seeds[:2]} both gave {first}")
    expect(first != second, case, f"both rows of one prompt are {first}")
    single = [row.tokens for row in case.take([0, 2]).run(seed=4)]
    expect(single == [first, second] * 2, case, f"a list of seeds gave {first}, one for all gave {single[0]}")


def _by_prompt(rows: list[Row], copies: int) -> list[list[Row]]:
    return [rows[start : start + copies] for start in range(0, len(rows), copies)]


@check("S9", share=0.75)
def cache_honesty(subject: StrategySubject, draw: Draw) -> None:
    """All logits that the strategy sees are those of a full forward pass without a cache, within 1e-9."""
    case = draw(subject.cases(CACHED))

    def watch(batch: "Batch") -> None:
        if "forward" in vars(batch):
            return
        original = batch.forward

        def forward(drafts: Any = None, *, session: str = "target", last: bool = False) -> Any:
            output = original(drafts, session=session, last=last)
            if session == "target":
                _compare_with_full(case, batch, drafts, output.logits, last)
            return output

        vars(batch)["forward"] = forward

    attrs.evolve(case, strategy=around(case.strategy, before=watch)).run()


def _compare_with_full(case: Case, batch: "Batch", drafts: Any, logits: torch.Tensor, last: bool) -> None:
    for place, row in enumerate(batch.rows):
        draft = list(drafts[place]) if drafts is not None else []
        wanted = full_logits(case.model.module, row.since(0) + draft)[-1 - len(draft) :]
        wanted, seen = (wanted[-1:], logits[place, -1:]) if last else (wanted, logits[place, : len(wanted)])
        message = (
            f"after {row.since(0)} and the draft {draft} the cached model says {seen.tolist()}, "
            f"the full forward pass {wanted.tolist()}"
        )
        expect(torch.allclose(seen, wanted, 0, case.model.tolerance), case, message)


@check("S10", share=0.5)
def rollback_leak(subject: StrategySubject, draw: Draw) -> None:
    """Drafts that were looked at and not committed change nothing that follows."""
    case = draw(subject.cases())
    draft = st.lists(st.integers(0, case.model.vocab_size - 1), max_size=3)
    drafts = draw(st.lists(draft, min_size=12, max_size=12))

    def look(batch: "Batch") -> None:
        batch.logits([drafts[(row.slot + row.length) % 12] for row in batch.rows])

    looking = attrs.evolve(case, strategy=around(case.strategy, before=look))
    expect_same(case, case.run(), looking.run(), "with drafts that were rejected")


@check("S11", share=0.5)
def left_padding(subject: StrategySubject, draw: Draw) -> None:
    """Padding on the left, of whatever id, changes nothing."""
    case = draw(subject.cases())
    padded = attrs.evolve(
        case, more_padding=draw(st.integers(1, 4)), pad=draw(st.integers(0, case.model.vocab_size - 1))
    )
    expect_same(case, case.run(), padded.run(), f"with {padded.more_padding} columns of {padded.pad}")


@check("S15")
def prompts_stay(subject: StrategySubject, draw: Draw) -> None:
    """Prompts, attention mask and the prompt part of the result stay as they are, also when pad is EOS."""
    case = draw(subject.cases())
    case = attrs.evolve(case, pad=draw(st.sampled_from([case.pad, *case.eos])))
    inputs = case.inputs()
    call = case.finished(**inputs)
    result = case.result(call).sequences[:, : inputs["input_ids"].shape[1]]
    expected = case.inputs()
    for name, given in inputs.items():
        expect(torch.equal(given, expected[name]), case, f"{name} became {given.tolist()}")
    wanted = expected["input_ids"].repeat_interleave(case.copies, 0)
    expect(torch.equal(result, wanted), case, f"in the result the prompts are {result.tolist()}")
    for row in call.rows:
        prompt = case.prompts[row.prompt]
        expect(row.prompt_tokens == prompt, case, f"prompt {prompt} became {row.prompt_tokens}")


@check("S37")
def smallest_calls(subject: StrategySubject, draw: Draw) -> None:
    """0 and 1 new tokens, up to five rows, and empty prompts (which are one BOS token) work."""
    case = draw(subject.cases())
    count = draw(st.integers(1, 5))
    shortest = attrs.evolve(
        case, prompts=[[]] * count, seeds=list(range(count)), max_new_tokens=draw(st.integers(0, 2))
    )
    begun = attrs.evolve(shortest, prompts=[[0]] * count)
    rows = shortest.run()
    longest = max(len(row.tokens) for row in rows)
    expect(longest <= shortest.max_new_tokens, shortest, f"a row has {longest} tokens")
    expect_same(shortest, rows, begun.run(), "with BOS as prompt")


@check("S37", most_examples=15)
def not_a_number(subject: StrategySubject, draw: Draw) -> None:
    """Logits of NaN are an error that names row and step, whatever the strategy does with them."""
    size, step = draw(st.integers(5, 8)), draw(st.integers(0, 2))
    table = torch.full((size, size), -torch.inf)
    table[torch.arange(size), (torch.arange(size) + 1) % size] = 0.0
    table[size - 1] = torch.nan
    model = KitModel(f"token i + 1 follows i, and NaN follows {size - 1}", MarkovModel(table), size)
    prompts = [[0], [size - 1 - step]]
    case = Case(strategy=draw(subject.strategies()), model=model, prompts=prompts, seeds=[0, 0])
    try:
        for _ in case.call().steps():
            pass
    except NonFiniteLogitsError as error:
        said = re.search(r"row \d+ \(prompt 1\) at step (\d+)", str(error))
        named = said is not None and int(said[1]) <= step  # a draft may see it earlier
        expect(named, case, f"NaN comes after prompt 1 at step {step}, and the error says: {error}")
        return
    expect(False, case, f"NaN came after prompt 1 at step {step}, and no NonFiniteLogitsError was raised")


CHECKS = (
    batch_invariance,
    batch_order,
    seeds,
    cache_honesty,
    rollback_leak,
    left_padding,
    prompts_stay,
    smallest_calls,
    not_a_number,
)

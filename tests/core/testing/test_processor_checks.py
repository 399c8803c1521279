"""Every check of the kit is shown a processor that is wrong in just the way it looks for."""

import itertools
import math
from typing import Any

import attrs
import pytest
import torch
from decodekit import Laws, Processor, param
from decodekit.testing import ConformanceError, Outcome, check_processor, processor_checks, processor_history

INF = float("inf")


def planted(title, body, *, laws=None, oracle=None, accepts=None, **parameters):
    """A processor class around ``body(self, logits, history)``, and the check that must refuse it."""
    fields = {"NAME": "planted", "LAWS": laws or Laws(), "__call__": body, **parameters}
    hints = {name: int if name == "k" else float for name in parameters}
    cls = attrs.frozen(slots=False)(type("Planted", (Processor,), {**fields, "__annotations__": hints}))
    return pytest.param(cls, title, {"oracle": oracle, "accepts": accepts}, id=title)


def in_place(self, logits, history):
    logits[:, 0] += 1
    return logits


def draws(self, logits, history):
    return logits + torch.rand(())


def by_position_in_the_batch(self, logits, history):
    return logits * torch.arange(1, len(logits) + 1, dtype=logits.dtype)[:, None]


def swapped(self, logits, history):
    return torch.where(logits.isfinite(), -logits, logits)


def without_the_largest(self, logits, history):
    largest = logits == logits.amax(-1, keepdim=True)
    return logits.masked_fill(largest & (logits.isfinite().sum(-1, keepdim=True) > 1), -INF)


def top_k(self, logits, history):
    k = min(self.k, logits.shape[-1])
    return logits.masked_fill(logits < logits.topk(k).values[:, -1:], -INF)


def exactly_k(self, logits, history):
    index = logits.topk(min(self.k, logits.shape[-1])).indices
    return torch.full_like(logits, -INF).scatter(-1, index, logits.gather(-1, index))


def half_the_vocabulary(self, logits, history):
    return logits.masked_fill(logits < logits.topk((logits.shape[-1] + 1) // 2).values[:, -1:], -INF)


def min_p(self, logits, history):
    p = logits.softmax(-1)
    return logits.masked_fill(p < self.min_p * p.amax(-1, keepdim=True), -INF)


def less_than_p(self, logits, history):
    ordered, index = logits.sort(descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    return logits.masked_fill((before >= self.p).scatter(-1, index, before >= self.p), -INF)


def ascending_nucleus(self, logits, history):
    ordered, index = logits.sort()
    kept = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1) < self.p
    return logits.masked_fill(~torch.empty_like(kept).scatter(-1, index, kept), -INF)


def tempered_by_the_batch(self, logits, history):
    p = logits.softmax(-1)
    return logits / (0.5 - torch.special.entr(p).sum() / len(p) / math.log(logits.shape[-1])).abs().clamp(0.1)


def quadratic_of_the_batch(self, logits, history):
    d = (logits - logits.max()).masked_fill(logits.isneginf(), 0)
    return (logits.max() - 0.3 * d * d).masked_fill(logits.isneginf(), -INF)


def penalty_in_place(self, logits, history):
    for row in range(len(logits)):
        logits[row, [token for token in history.row(row) if token < logits.shape[-1]]] -= 1
    return logits


def revives_with_a_floor(self, logits, history):
    return torch.maximum(logits, logits.amax(-1, keepdim=True) - 5)


def penalise(logits, ids):
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, True)
    return torch.where(seen, logits - 1, logits)


def penalises_padding(self, logits, history):
    return penalise(logits, history.tokens.clamp(max=logits.shape[-1] - 1))


def penalises_the_last_for_ids_beyond(self, logits, history):
    largest = history.tokens.amax(dim=1, keepdim=True)
    return penalise(logits, largest.clamp(max=logits.shape[-1] - 1))


def crashes_on_ids_beyond(self, logits, history):
    return penalise(logits, history.tokens.amax(dim=1, keepdim=True))


def counts_all(self, logits, history):
    return logits - history.lengths[:, None]


def grows_with_the_length(self, logits, history):
    return logits - 2.0 ** int(history.lengths.max())


def remembers_the_last(self, logits, history):
    last, self.__dict__["last"] = self.__dict__.get("last"), history.tokens.tolist()
    return logits + (last is not None and last != history.tokens.tolist())


def remembers_its_first(self, logits, history):
    first = self.__dict__.setdefault("first", history.tokens.tolist())
    return logits + (first != history.tokens.tolist())


def fails_once(self, logits, history):
    SEEN.append(0)
    return logits * (math.nan if len(SEEN) == 1 else 1)


def half_the_temperature(self, logits, history):
    return logits * (2 - self.k)


def generated_oracle(row):
    return [x - (len(row.tokens) - row.prompt_length) for x in row.logits]


def top_k_oracle(row, k):
    return [x if x >= sorted(row.logits)[-k:][0] else -INF for x in row.logits]


SEEN: list[Any] = []


def one_token_more(self, logits, history):
    """The nucleus, and the next token as well: an upper set that grows with p and keeps the argmax."""
    ordered, index = logits.sort(descending=True, stable=True)
    before = ordered.softmax(-1).cumsum(-1) - 2 * ordered.softmax(-1)
    return logits.masked_fill((before >= self.p).scatter(-1, index, before >= self.p), -INF)


def one_token_less(self, logits, history):
    """The nucleus as the sum runs up to p, and not over it."""
    ordered, index = logits.sort(descending=True, stable=True)
    cut = ordered.softmax(-1).cumsum(-1) > self.p
    cut[:, 0] = False
    return logits.masked_fill(cut.scatter(-1, index, cut), -INF)


def never_two_in_a_row(self, logits, history):
    return logits.masked_fill(torch.arange(logits.shape[-1]) == history.tokens[:, -1:], -INF)


def no_twins(prompt, tokens):
    """A row may begin with the prompt's last token; not so in `never_two_in_a_row`."""
    return all(one != other for one, other in itertools.pairwise(tokens[:-1]))


def no_twins_at_all(prompt, tokens):
    return len({*tokens}) == len(tokens)


K = {"k": param(2, range="[1, inf)", help="")}
MIN_P = {"min_p": param(0.1, range="[0, 1]", help="")}
P = {"p": param(0.5, range="[0, 1]", help="")}
TEN_OF_0 = lambda self, x, history: x + 10 * (torch.arange(x.shape[-1]) == 0)  # noqa: E731  # a row of the table

PLANTED = [
    planted("P1 shape dtype and device", lambda self, x, history: x.float()),
    planted("P1 shape dtype and device", lambda self, x, history: x[:, :-1]),
    planted("P2 purity", in_place),
    planted("P3 determinism", draws),
    planted("P4 row independence", lambda self, x, history: x - x.max()),
    planted("P5 batch order", by_position_in_the_batch),
    planted("P6 no nan", lambda self, x, history: x - x.amin(-1, keepdim=True)),
    planted("P6 no nan", fails_once),
    planted("P7 support", lambda self, x, history: x.masked_fill(x == x.amax(-1, keepdim=True), -INF)),
    planted("P8 no resurrection", lambda self, x, history: x.clamp(min=-1e9)),
    planted(
        "P9 shift invariance",
        lambda self, x, history: x * x.abs().clamp(max=2),
        laws=Laws(shift_invariant=True),
    ),
    planted("P10 vocabulary permutation", TEN_OF_0, laws=Laws(permutation_equivariant=True)),
    planted("P11 ratio preservation", lambda self, x, history: x / 2, laws=Laws(keeps_ratios=True)),
    planted("P12 upper set", without_the_largest, laws=Laws(upper_set=True)),
    planted("P13 order preservation", swapped, laws=Laws(keeps_order=True)),
    planted("P14 argmax preservation", swapped, laws=Laws(keeps_argmax=True)),
    planted("P15 idempotence", less_than_p, laws=Laws(idempotent=True), **P),
    planted("P16 nested supports", top_k, laws=Laws(nested="-k"), **K),
    planted("P16 nested supports", min_p, laws=Laws(nested="min_p"), **MIN_P),
    planted("P17 neutral parameter", half_the_temperature, k=param(1, range="[0, inf)", neutral=0, help="")),
    planted("P18 extreme parameters", less_than_p, **P),
    planted("P19 temperature law", min_p, laws=Laws(commutes_with_temperature=True), **MIN_P),
    planted("P20 minimality", one_token_more, laws=Laws(smallest="p"), **P),
    planted("P20 minimality", one_token_less, laws=Laws(smallest="p"), **P),
    planted("P21 oracle equality", exactly_k, oracle=top_k_oracle, **K),
    planted("P22 no memory", remembers_the_last),
    planted("P24 fresh start", remembers_its_first),
    planted("P25 padding invariance", penalises_padding),
    planted("P26 prompt and generated", counts_all, oracle=generated_oracle),
    planted("P27 vocabulary padding", half_the_vocabulary),
    planted("P28 ids beyond the logits", penalises_the_last_for_ids_beyond),
    planted("P28 ids beyond the logits", crashes_on_ids_beyond),
    planted("P29 long history", grows_with_the_length),
    planted("P30 parameter validation", min_p, min_p=0.1),
    planted("P30 parameter validation", lambda self, x, history: x / self.t, t=param(1.0, help="")),
    planted("P31 half precision", less_than_p, **P),
    planted("P32 chain algebra", top_k, laws=Laws(commutes_with=("top_p", "no_such")), **K),
    planted("P32 chain algebra", min_p, laws=Laws(commutes_with=("temperature",)), **MIN_P),
    planted("S27 constraint completeness", never_two_in_a_row, accepts=no_twins),
    planted("S27 constraint soundness", never_two_in_a_row, accepts=no_twins_at_all),
    # Mistakes of samplers in use: reductions over the batch, the nucleus of the least probable, and so on.
    planted("P4 row independence", tempered_by_the_batch),
    planted("P4 row independence", quadratic_of_the_batch),
    planted("P12 upper set", ascending_nucleus, laws=Laws(upper_set=True), **P),
    planted("P14 argmax preservation", ascending_nucleus, laws=Laws(keeps_argmax=True), **P),
    planted("P2 purity", penalty_in_place),
    planted("P8 no resurrection", revives_with_a_floor),
]


@pytest.mark.parametrize(("cls", "title", "options"), PLANTED)
def test_a_wrong_processor_is_caught(cls, title, options):
    SEEN.clear()
    with pytest.raises(ConformanceError, match=f"processor planted does not conform.\n{title}: broken: "):
        dict(processor_checks(cls, profile="thorough", **options))[title]()


def right(self, logits, history):
    return penalise(top_k(self, logits, history), torch.zeros(len(logits), 1, dtype=torch.long))


def right_oracle(row, k):
    kept = top_k_oracle(row, k)
    return [kept[0] - 1, *kept[1:]]


def right_class(laws):
    return planted("", right, laws=laws, **K).values[0]


def test_a_right_processor_passes_all():
    cls = right_class(Laws(shift_invariant=True, nested="k"))
    report = check_processor(cls, oracle=right_oracle, profile="fast")
    assert not report.of(Outcome.FAILED)
    assert {item.id for item in report.of(Outcome.PASSED)} >= {"P1", "P9", "P16", "P18", "P21", "P26", "P31"}
    skipped = {item.id: item.detail for item in report.of(Outcome.SKIPPED)}
    assert skipped["P11"] == "keeps_ratios is not declared"
    assert skipped["P17"] == "no parameter declares a neutral value"
    assert skipped["P23"] == "it has no state"


def test_an_undeclared_law_that_seems_to_hold_is_a_hint():
    report = check_processor(right_class(Laws()), profile="default")
    hints = {item.id: item.detail for item in report.of(Outcome.HINT)}
    assert set(hints) == {"P9", "P12"}
    assert "declare shift_invariant in LAWS" in hints["P9"]
    assert "pass oracle=" in str(report)


def test_the_error_names_each_broken_property_with_its_counter_example():
    cls = planted("", swapped, laws=Laws(keeps_order=True, keeps_argmax=True)).values[0]
    with pytest.raises(ConformanceError) as caught:
        check_processor(cls, profile="fast")
    failed = caught.value.report.of(Outcome.FAILED)
    assert [item.id for item in failed] == ["P13", "P14"]
    for line in ("P13 order preservation: broken: No two survivors swap.", "logits         [0.0, 1.0]"):
        assert line in str(caught.value)


def test_a_slow_processor_is_caught(monkeypatch):
    monkeypatch.setattr(processor_history, "_SECONDS", 0.0)
    with pytest.raises(ConformanceError, match=r"P29 long history: .*\nit took .* s"):
        dict(processor_checks(right_class(Laws())))["P29 long history"]()

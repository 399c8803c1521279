"""The conformance kit for quantization backends: Q1 to Q9, and the figures of a real model."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from hypothesis import strategies as st
from torch import nn

from decodekit.figures import Figures, measure
from decodekit.load import load, model_bytes
from decodekit.quant_backend import QuantBackend
from decodekit.registry import registry
from decodekit.session import Session
from decodekit.testing.check import (
    BrokenPromiseError,
    Check,
    Draw,
    assertions,
    check,
    class_and_instance,
    run_checks,
)
from decodekit.testing.quant_model import kit_folder, prompts
from decodekit.testing.quant_strategies import installed_strategies, strategy_findings
from decodekit.testing.quant_subject import QuantSubject, logits_of, unquantized, without_bars
from decodekit.testing.report import Report, Result

__all__ = ["QUANT_CHECKS", "QuantReport", "check_quant_backend", "quant_checks"]

_FIXED = (8, 16, 1)  # rows, tokens and seed of the prompts on which closeness is measured


def _expect(condition: bool, backend: QuantBackend, message: str) -> None:
    if not condition:
        raise BrokenPromiseError(f"{message}\nbackend  {backend!r}")  # noqa: EM102  # made of both, and only here


@check("Q1", most_examples=8)
def close_to_the_unquantized(subject: QuantSubject, draw: Draw) -> None:
    """The mean KL(unquantized || quantized) on fixed prompts is at most LAWS.kl; 0 means bit-equal logits."""
    backend = draw(subject.backends())
    tokens = prompts(*_FIXED)
    wanted, seen = (
        logits_of(unquantized(subject.device_map), tokens),
        logits_of(subject.load(backend), tokens),
    )
    bound = subject.cls.LAWS.kl
    if bound == 0:
        _expect(torch.equal(wanted, seen), backend, "the logits are not those of the unquantized model")
        return
    kl = nn.functional.kl_div(seen.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="none")
    mean = float(kl.sum(-1).mean())
    same = float((wanted.argmax(-1) == seen.argmax(-1)).float().mean())
    message = f"the mean KL is {mean:.4f} nats, and LAWS.kl={bound}; {same:.0%} of the argmax are the same"
    _expect(mean <= bound, backend, message)


@check("Q2", most_examples=10)
def deterministic_forward(subject: QuantSubject, draw: Draw) -> None:
    """The same forward pass gives the same logits, bit for bit, also after other inputs."""
    backend, seed = draw(subject.backends()), draw(st.integers(0, 99))
    model, tokens = subject.load(backend), prompts(3, 7, seed)
    first = logits_of(model, tokens)
    logits_of(model, prompts(2, 5, seed + 1))
    _expect(torch.equal(first, logits_of(model, tokens)), backend, f"prompts of seed {seed} differ again")


@check("Q3", most_examples=10)
def cached_as_uncached(subject: QuantSubject, draw: Draw) -> None:
    """Logits from the cache, fed in pieces, are those of one forward pass, within LAWS.noise."""
    backend, seed = draw(subject.backends()), draw(st.integers(0, 99))
    pieces = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    model, tokens = subject.load(backend), prompts(3, sum(pieces), seed)
    session = Session(model)
    with torch.inference_mode():
        seen = torch.cat([session.feed(piece).logits for piece in torch.split(tokens, pieces, dim=1)], dim=1)
    _expect_near(subject, backend, seen, logits_of(model, tokens), f"fed in pieces of {pieces}")


@check("Q4", most_examples=10)
def rows_for_themselves(subject: QuantSubject, draw: Draw) -> None:
    """A row alone is what it is in a batch, within LAWS.noise."""
    backend, seed = draw(subject.backends()), draw(st.integers(0, 99))
    count = draw(st.integers(2, 6))
    model, tokens = subject.load(backend), prompts(count, draw(st.integers(1, 9)), seed)
    row = draw(st.integers(0, count - 1))
    together = logits_of(model, tokens)[row : row + 1]
    _expect_near(subject, backend, logits_of(model, tokens[row : row + 1]), together, f"row {row} alone")


def _expect_near(
    subject: QuantSubject, backend: QuantBackend, seen: torch.Tensor, wanted: torch.Tensor, what: str
) -> None:
    far = float((seen.float().cpu() - wanted).abs().max() / wanted.std())
    bound = subject.cls.LAWS.noise
    message = f"{what}, logits differ by {far:.2g} of their standard deviation, and LAWS.noise={bound}"
    _expect(far <= bound, backend, message)


@check("Q5", most_examples=6)
def strategies_on_top(subject: QuantSubject, draw: Draw) -> None:
    """Every installed strategy passes its own checks on the quantized model, which is its reference."""
    backend = draw(subject.backends())
    model = subject.load(backend)
    strategies = subject.strategies or installed_strategies()
    for finding in strategy_findings(model, strategies, subject.cls.LAWS.noise, draw):
        _expect(False, backend, finding)


@check("Q6", law="saves", most_examples=4)
def saved_and_loaded(subject: QuantSubject, draw: Draw) -> None:
    """A saved model is loaded without naming the backend, in as few bytes and with bit-equal logits."""
    backend, used = draw(subject.backends()), draw(st.booleans())
    model, tokens = subject.load(backend), prompts(3, 7, 5)
    if used:
        logits_of(model, tokens)
    with tempfile.TemporaryDirectory() as folder, without_bars():
        try:
            model.save_pretrained(folder)
            load(kit_folder(), device_map="cpu")[1].save_pretrained(folder)
            again = load(folder, device_map=subject.device_map)[0]
        except Exception as error:
            message = f"saving and loading raised {type(error).__name__}: {error}\nbackend  {backend!r}"
            raise BrokenPromiseError(message) from error
        wanted, seen = logits_of(model, tokens), logits_of(again, tokens)
    far = float((wanted - seen).abs().max())
    _expect(torch.equal(wanted, seen), backend, f"after saving and loading, logits differ by {far:.2g}")
    sizes = model_bytes(model), model_bytes(again)
    message = f"the saved model has {sizes[0]} bytes and the loaded one {sizes[1]}"
    _expect(sizes[1] <= 1.02 * sizes[0], backend, message)


@check("Q7", skip=lambda subject: None if subject.declares("bits") else "LAWS.bits is not declared")
def memory_claim(subject: QuantSubject, draw: Draw) -> None:
    """A linear weight takes at most LAWS.bits bits, before and after the first forward pass."""
    backend = draw(subject.backends())
    skipped = getattr(backend, "skip_modules", ())
    if skipped:
        return
    plain = unquantized(subject.device_map)
    head = plain.get_output_embeddings()
    layers = [item for item in plain.modules() if isinstance(item, nn.Linear) and item is not head]
    weights = sum(layer.weight.numel() for layer in layers)
    rest = model_bytes(plain) - sum(layer.weight.nbytes for layer in layers)
    model, bound = subject.load(backend), subject.cls.LAWS.bits
    for when in ("before", "after"):
        bits = (model_bytes(model) - rest) * 8 / weights
        _expect(
            bits <= (bound or 0.0),
            backend,
            f"{when} a forward pass a weight takes {bits:.2f} bits, and LAWS.bits={bound}",
        )
        logits_of(model, prompts(2, 4, 0))


@check("Q8", law="keeps_embeddings", most_examples=8)
def embeddings_stay(subject: QuantSubject, draw: Draw) -> None:
    """Embeddings and output layer keep their values and stay one tensor."""
    backend = draw(subject.backends())
    plain, model = unquantized(subject.device_map), subject.load(backend)
    before, after = plain.get_input_embeddings().weight, model.get_input_embeddings().weight
    _expect(torch.equal(before, after.to(before.dtype)), backend, "the embeddings have changed")
    tied = model.get_output_embeddings().weight is after
    _expect(tied, backend, "the output layer is not tied to the embeddings any more")


@check("Q9", most_examples=10)
def forks_and_rollbacks(subject: QuantSubject, draw: Draw) -> None:
    """After forks, reordering and rollbacks, logits are those of a fresh pass, within LAWS.noise."""
    backend, seed = draw(subject.backends()), draw(st.integers(0, 99))
    model, tokens = subject.load(backend), prompts(3, 6, seed)
    session = Session(model)
    rows = draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
    back = draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    with torch.inference_mode():
        session.feed(tokens)
        session.select(rows)
        session.feed(prompts(len(rows), 3, seed + 1))
        session.rollback(back)
        seen = session.feed(prompts(len(rows), 1, seed + 2)).logits[:, -1]
    for place, row in enumerate(rows):
        more = prompts(len(rows), 3, seed + 1)[place, : 3 - back[place]]
        whole = torch.cat([tokens[row], more, prompts(len(rows), 1, seed + 2)[place]])[None]
        wanted = logits_of(model, whole)
        what = f"after the rows {rows} and taking back {back}, in row {place}"
        far = float((seen[place].float().cpu() - wanted[0, -1]).abs().max() / wanted.std())
        bound = subject.cls.LAWS.noise
        message = f"{what}, logits differ by {far:.2g} of their standard deviation, and LAWS.noise={bound}"
        _expect(far <= bound, backend, message)


QUANT_CHECKS: tuple[Check[QuantSubject], ...] = (
    close_to_the_unquantized,
    deterministic_forward,
    cached_as_uncached,
    rows_for_themselves,
    strategies_on_top,
    saved_and_loaded,
    memory_claim,
    embeddings_stay,
    forks_and_rollbacks,
)
"""Every check, in the order of the numbers."""


@attrs.frozen
class QuantReport(Report):
    """The outcomes of all checks of a backend.

    Attributes:
        figures: of the unquantized model and of the backend, when a model was named.
    """

    figures: tuple[Figures, ...] = ()

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  {item}" for item in self.figures)])


def check_quant_backend(
    backend: type[QuantBackend] | QuantBackend,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    strategies: Sequence[Any] = (),
    model: Any = None,
    device_map: Any = None,
    profile: str | None = None,
    exceptions: Mapping[str, str] | None = None,
) -> QuantReport:
    """Check a quantization backend against its contract and its declared laws.

    It loads a small model with every drawn combination of options, and compares logits, bytes,
    saved copies and what the installed strategies decode from it.

    Args:
        backend: a class, or an instance when only its own options are of interest.
        examples: option values to try, as dictionaries; left out, they are drawn from the declared
            ranges and choices.
        strategies: decoding strategies to try on top, by name, as ``(name, values)`` or instances; left out,
            all that are installed and need no arguments.
        model: a folder, a GGUF file or a hub id, or ``"default"``, whose figures the report shall have:
            bytes, seconds to load, tokens a second, perplexity and agreement with the unquantized model.
        device_map: where the models go, as of `decodekit.load`.
        profile: ``fast``, ``default`` or ``thorough``; by default DECODEKIT_TEST_PROFILE.
        exceptions: a check's id -> why this backend may break it.

    Returns:
        What passed, what was skipped and why, and the figures.

    Raises:
        ConformanceError: names each broken property and the smallest counter-example.
        MissingLibraryError, CapabilityError: the backend can't be used here.
        ParameterError: ``backend`` is none, there is no such profile, or an option that needs ``examples``
            got none.
    """
    subject = _subject(backend, examples, strategies, device_map)
    report = run_checks(QUANT_CHECKS, subject, profile, exceptions)
    figures: tuple[Figures, ...] = ()
    if model is not None:
        name = None if model == "default" else model
        plain = measure(name, "none", device_map=device_map)
        given = subject.fixed or subject.cls
        figures = (plain, measure(name, given, reference=plain.argmax, device_map=device_map))
    return QuantReport(report.name, report.results, figures)


def quant_checks(
    backend: type[QuantBackend] | QuantBackend,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    strategies: Sequence[Any] = (),
    device_map: Any = None,
    profile: str | None = None,
    exceptions: Mapping[str, str] | None = None,
) -> list[tuple[str, Callable[[], Result]]]:
    """The checks that apply, as ``(id, function)`` pairs for ``pytest.mark.parametrize``.

    Arguments and errors are those of `check_quant_backend`; each function raises on its own.
    """
    return assertions(QUANT_CHECKS, _subject(backend, examples, strategies, device_map), profile, exceptions)


def _subject(
    backend: type[QuantBackend] | QuantBackend,
    examples: Sequence[Mapping[str, Any]],
    strategies: Sequence[Any],
    device_map: Any,
) -> QuantSubject:
    cls, fixed = class_and_instance("quant_backends", backend)
    made = tuple(registry().resolve("strategies", item) for item in strategies)
    return QuantSubject(cls, fixed, examples, made, device_map)

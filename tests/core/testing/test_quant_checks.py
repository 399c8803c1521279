import itertools

import attrs
import pytest
import torch
from decodekit import ParameterError, QuantBackend, QuantLaws, param
from decodekit.testing import ConformanceError, check_quant_backend, quant_checks
from decodekit.testing.check import run_check
from decodekit.testing.quant_checks import QUANT_CHECKS
from decodekit.testing.quant_subject import QuantSubject
from decodekit.testing.report import Outcome

BY_NUMBER = {item.id: item for item in QUANT_CHECKS}


class Faulty(QuantBackend):
    """A backend that does nothing; its heirs do something wrong."""

    LAWS = QuantLaws(kl=1e-6, noise=1e-3)


def on_logits(change):
    """A conversion that passes all logits through ``change(logits, arguments of the forward)``."""

    def convert(self, model):
        def hook(module, args, kwargs, output):
            output.logits = change(output.logits, kwargs or {})
            return output

        model.register_forward_hook(hook, with_kwargs=True)
        return model

    return convert


@attrs.frozen
class Harmless(Faulty):
    NAME = "harmless"
    LAWS = QuantLaws(kl=0.0, saves=True)


@attrs.frozen
class FarAway(Faulty):
    NAME = "far-away"

    def convert(self, model):
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
        return model


@attrs.frozen
class Random(Faulty):
    NAME = "random"
    convert = on_logits(lambda logits, _: logits + 1e-4 * torch.rand(()))


@attrs.frozen
class CountsWhatIsFed(Faulty):
    NAME = "counts-what-is-fed"
    convert = on_logits(lambda logits, _: logits + logits.shape[1] * torch.arange(logits.shape[-1]) / 99)


@attrs.frozen
class LooksAtOtherRows(Faulty):
    NAME = "looks-at-other-rows"
    convert = on_logits(lambda logits, _: logits + 0.1 * logits.mean(dim=0, keepdim=True))


@attrs.frozen
class Drifts(Faulty):
    """Prefers another token at each call."""

    NAME = "drifts"
    calls = itertools.count()
    convert = on_logits(lambda logits, _: logits.roll(next(Drifts.calls), dims=-1))


@attrs.frozen
class ForgetsWhenSaved(Faulty):
    NAME = "forgets-when-saved"
    LAWS = QuantLaws(saves=True)
    convert = on_logits(lambda logits, _: 1.01 * logits)


@attrs.frozen
class SavesNothing(Faulty):
    NAME = "saves-nothing"
    LAWS = QuantLaws(bits=4.0)


@attrs.frozen
class Unties(Faulty):
    NAME = "unties"

    def convert(self, model):
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        return model


@attrs.frozen
class SeesPadding(Faulty):
    """Takes the width of the cache for the length of the row."""

    NAME = "sees-padding"

    @staticmethod
    def change(logits, arguments):
        cache = arguments.get("past_key_values")
        width = cache.get_seq_length() if cache is not None else logits.shape[1]
        return logits + width * torch.arange(logits.shape[-1]) / 50

    convert = on_logits(change.__func__)


@attrs.frozen
class WithAText(Faulty):
    NAME = "with-a-text"
    text: str = param(help="Any text.")


PLANTED = {
    "Q1": FarAway,
    "Q2": Random,
    "Q3": CountsWhatIsFed,
    "Q4": LooksAtOtherRows,
    "Q5": Drifts,
    "Q6": ForgetsWhenSaved,
    "Q7": SavesNothing,
    "Q8": Unties,
    "Q9": SeesPadding,
}


def outcome(number, cls, examples=40):
    return run_check(BY_NUMBER[number], QuantSubject(cls), examples)


@pytest.mark.parametrize("number", PLANTED)
def test_a_planted_fault_is_found_and_named(number):
    found = outcome(number, PLANTED[number])

    assert found.outcome is Outcome.FAILED
    assert PLANTED[number].__name__ in found.detail


def test_a_backend_that_keeps_its_laws_passes_all():
    report = check_quant_backend(Harmless, profile="fast", strategies=["greedy", "beam"])

    assert [item.id for item in report.of(Outcome.PASSED)] == [f"Q{n}" for n in (1, 2, 3, 4, 5, 6, 8, 9)]
    assert "LAWS.bits is not declared" in str(report)


def test_a_failure_is_raised_with_its_number():
    with pytest.raises(ConformanceError, match=r"(?s)Q8 embeddings stay: .*not tied"):
        check_quant_backend(Unties, profile="fast", strategies=["greedy"])


def test_a_backend_that_can_not_load_is_a_finding():
    @attrs.frozen
    class Broken(Faulty):
        NAME = "broken"

        def convert(self, model):
            message = "no such kernel"
            raise RuntimeError(message)

    assert "can't load the kit's model, RuntimeError: no such kernel" in outcome("Q2", Broken).detail


def test_an_option_without_a_range_needs_examples():
    with pytest.raises(ParameterError, match=r"needs values of text.*examples=\[\{'text'"):
        outcome("Q2", WithAText)

    assert run_check(BY_NUMBER["Q2"], QuantSubject(WithAText, examples=[{"text": "x"}]), 3).outcome is (
        Outcome.PASSED
    )


def test_an_instance_is_checked_as_it_is():
    names = [name for name, _ in quant_checks(Harmless(), profile="fast")]

    assert names[0] == "Q1 close to the unquantized"


def test_figures_of_a_model_come_with_the_report(tiny_folder):
    report = check_quant_backend(Harmless, profile="fast", strategies=["greedy"], model=tiny_folder)

    plain, own = report.figures
    assert (plain.backend, own.backend) == ("none", "harmless")
    assert own.agreement == 1.0
    assert own.perplexity == plain.perplexity
    assert "tokens_per_second" in str(report)

"""The kit for plugins of any kind: declared exceptions, tests for pytest, and the option of pytest."""

import sys

import attrs
import pytest
import torch
from decodekit import Laws, ParameterError, Processor, UnknownNameError
from decodekit.contract import BASES, NOUNS
from decodekit.testing import ConformanceError, Outcome, check_plugin, order_witness, parametrize, plugins_of
from decodekit.testing.advice import ADVICE
from decodekit.testing.check import listening
from decodekit.testing.conformance import _KITS, all_checks
from decodekit.testing.elsewhere import ELSEWHERE
from decodekit.testing.processor_checks import PROCESSOR_CHECKS
from decodekit.testing.strategy_toys import Heat, Top

SOURCE = '''
import attrs
import torch
import decodekit as dk


@attrs.frozen
class SoftCap(dk.Processor):
    """Cap."""

    NAME = "soft_cap"
    EXCEPTIONS = {"P4": "it was so once"}
    cap: float = dk.param(30.0, range="[1, inf)", help="cap")

    def __call__(self, logits, history):
        return self.cap * torch.tanh(logits / self.cap)
'''


@attrs.frozen
class Quarter(Processor):
    """Keep what has at least a quarter of the probability of the largest."""

    NAME = "quarter"

    def __call__(self, logits, history):
        p = logits.softmax(-1)
        return logits.masked_fill(p < p.amax(-1, keepdim=True) / 4, -torch.inf)


@attrs.frozen
class Batchy(Processor):
    """Subtract the largest of all rows, which no processor may look at."""

    NAME = "batchy"
    LAWS = Laws(shift_invariant=True)

    def __call__(self, logits, history):
        return logits - logits[logits.isfinite()].max()


class Excused(Batchy):
    """The same, and it says so."""

    EXCEPTIONS = {"P4": "rows are capped together", "P2 purity": "it used to write in place"}  # noqa: RUF012  # test


@pytest.fixture(autouse=True)
def few_checks(monkeypatch):
    """Three properties are enough to see how they are reported."""
    few = [item for item in PROCESSOR_CHECKS if item.id in ("P2", "P4", "P8")]
    monkeypatch.setattr(sys.modules["decodekit.testing.processor_checks"], "PROCESSOR_CHECKS", few)


def outcomes(report):
    return {result.id: result for result in report.results}


def test_a_declared_exception_is_shown_and_does_not_fail():
    with pytest.raises(ConformanceError) as caught:
        check_plugin(Batchy, profile="fast")
    assert [item.id for item in caught.value.report.of_failures()] == ["P4"]
    found = outcomes(check_plugin(Excused, profile="fast"))
    assert found["P4"].outcome is Outcome.EXCEPTED
    assert found["P4"].detail.startswith("rows are capped together\nbroken: A row alone")
    assert found["P2"].outcome is Outcome.HINT
    assert "it used to write in place): remove it" in found["P2"].detail


def test_an_exception_of_the_caller_counts_as_well():
    report = check_plugin(Batchy, profile="fast", exceptions={"P4 row independence": "wanted"})
    assert outcomes(report)["P4"].outcome is Outcome.EXCEPTED


@pytest.mark.parametrize(
    ("exceptions", "message"),
    [
        ({"P44": "why"}, "names 'P44', and there is no such check. Did you mean 'P4'"),
        ({"P4": " "}, "say why"),
    ],
)
def test_an_exception_must_name_a_check_and_a_reason(exceptions, message):
    with pytest.raises(ParameterError, match=message):
        check_plugin(Batchy, exceptions=exceptions)


def test_results_are_told_as_they_come():
    told = []
    with listening(told.append):
        report = check_plugin(Excused, profile="fast")
    assert tuple(told) == report.results
    check_plugin(Excused, profile="fast")
    assert len(told) == len(report.results)


def test_every_check_says_why_it_matters_and_what_to_do():
    keys = [item.key for checks in all_checks().values() for item in checks]
    assert sorted(keys) == sorted(ADVICE)
    assert all(advice.why.endswith(".") and advice.remedy.endswith(".") for advice in ADVICE.values())


def test_every_number_of_the_list_is_there_or_has_its_reason():
    wanted = {f"{letter}{n}" for letter, most in (("P", 32), ("S", 38), ("Q", 9)) for n in range(1, most + 1)}
    found = {item.id for checks in all_checks().values() for item in checks}
    assert wanted - found == set(ELSEWHERE)


def test_the_order_of_two_processors_has_a_witness_or_none():
    assert order_witness(Heat(0.7), Top(2), profile="fast") is None
    found = order_witness(Heat, Quarter, profile="default")
    assert found.startswith("broken: the order of processor kit_heat and processor quarter makes no")
    assert "before Quarter() it gives" in found


def test_what_is_no_plugin_is_refused():
    for plugin in (int, 3, torch.nn.Linear):
        with pytest.raises(ParameterError, match=r"must be a class or an instance of decodekit\.Processor"):
            check_plugin(plugin)


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "capped_plugin.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "capped_plugin", raising=False)
    return tmp_path


@pytest.mark.parametrize("spec", ["capped_plugin", "capped_plugin:SoftCap"])
def test_a_module_or_a_class_is_named(module, spec):
    (cls,) = plugins_of(spec)
    assert cls.NAME == "soft_cap"


def test_an_installed_plugin_is_named():
    (cls,) = plugins_of("min_p")
    assert cls.NAME == "min_p"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (
            "minp",
            UnknownNameError,
            "there is no module 'minp'. Did you mean 'min_p'",
        ),
        ("json", ParameterError, "'json' defines no plugin"),
        ("json:dumps", ParameterError, "can't be checked"),
        ("decodekit:Processor", ImportError, "has no NAME"),
    ],
)
def test_what_can_not_be_checked_is_named(spec, error, message):
    with pytest.raises(error, match=message):
        plugins_of(spec)


class Recorder:
    """A plugin of pytest that keeps how each test ended."""

    def __init__(self):
        self.reports = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.reports[report.nodeid.rpartition("::")[2]] = report


def run_pytest(folder, *arguments):
    recorder = Recorder()
    code = pytest.main(
        ["-p", "no:cacheprovider", f"--rootdir={folder}", "-c", "/dev/null", *arguments],
        plugins=[recorder],
    )
    return code, recorder.reports


def test_the_option_of_pytest_makes_a_test_of_each_property(module):
    code, reports = run_pytest(
        module, str(module), "--decodekit", "capped_plugin", "--decodekit-profile=fast"
    )
    assert code == 1
    assert reports["soft_cap P4 row independence"].passed
    failed = [name for name, report in reports.items() if report.failed]
    assert failed == ["soft_cap P8 no resurrection"]
    text = str(reports[failed[0]].longrepr)
    assert text.startswith("processor soft_cap does not conform.\nP8 no resurrection: broken: ")
    assert "def test_p8_no_resurrection():" in text


def test_a_test_file_has_one_test_for_each_property(module):
    lines = ["import decodekit.testing", "from capped_plugin import SoftCap", ""]
    lines += ["@decodekit.testing.parametrize(SoftCap, profile='fast', exceptions={'P8': 'why not'})"]
    lines += ["def test_it(check):", "    check()"]
    (module / "test_capped_plugin.py").write_text("\n".join(lines))
    code, reports = run_pytest(module, str(module / "test_capped_plugin.py"))
    assert code == 0
    assert reports["test_it[P4 row independence]"].passed
    assert reports["test_it[P8 no resurrection]"].wasxfail == "why not"


def test_the_marker_has_the_ids_of_the_properties():
    (arguments,) = (parametrize(Excused, profile="fast").mark.args,)
    assert arguments[0] == "check"
    assert [item.id for item in arguments[1]] == ["P2 purity", "P4 row independence", "P8 no resurrection"]


def test_an_option_that_names_nothing_is_a_usage_error(module):
    code, reports = run_pytest(module, str(module), "--decodekit", "no_such_thing")
    assert (code, reports) == (4, {})


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("wrong", [None, "top_k", 5, dict, torch.nn.Identity()], ids=str)
def test_what_is_no_plugin_of_the_kind_is_refused(kind, wrong):
    check, checks = _KITS[kind]
    for function in (check, checks):
        with pytest.raises(
            ParameterError, match=rf" is no {NOUNS[kind]}: .*decodekit.{BASES[kind].__name__};"
        ):
            function(wrong)


def test_a_plugin_of_another_kind_is_refused():
    with pytest.raises(ParameterError, match=r"Top.* is no strategy"):
        _KITS["strategies"][0](Top)

"""The doctor, on plugins that are really installed and broken in every way that is known."""

import contextlib
import textwrap

import pytest
from decodekit.discovery import points
from decodekit.doctor import _findings, _Worker, diagnose
from decodekit.errors import PluginError
from decodekit.settings import set_disabled


@pytest.fixture
def patients(install_plugin, mild, tmp_path, monkeypatch):
    """Twelve distributions; the worker finds them as this process does."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DECODEKIT_CONFIG_DIR", str(tmp_path / "settings"))
    install_plugin("kit-ok", mild("fine", "Fine"))
    install_plugin("kit-missing", "import no_such_library")
    install_plugin("kit-broken", "1 / 0")
    install_plugin("kit-exits", "import os\nos._exit(3)")
    install_plugin("kit-hangs", "import time\ntime.sleep(600)")
    install_plugin("kit-slow", "import time\ntime.sleep(0.6)\n" + textwrap.dedent(mild("late", "Late")))
    install_plugin("kit-twin-a", mild())
    install_plugin("kit-twin-b", mild())
    future = textwrap.dedent(mild("future", "Future"))
    install_plugin("kit-future", future.replace("NAME =", "API_VERSION = 9\n    NAME ="))
    needy = textwrap.dedent(mild("needy", "Needy"))
    install_plugin("kit-needy", needy.replace("NAME =", "REQUIRES = {'no_such': 'no-such>=1'}\n    NAME ="))
    install_plugin("kit-old", mild("old", "Old"))
    metadata = tmp_path / "kit_old-1.2.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text() + "Requires-Dist: decodekit-core<0.0.1\n")
    install_plugin("kit-off", "1 / 0")
    install_plugin("kit-talks", "print('{}')\n" + textwrap.dedent(mild("talks", "Talks")))
    set_disabled(["kit-off"], True)


def test_every_patient_gets_its_own_finding(patients):
    told = []
    found = diagnose(seconds=2, slow=0.5, progress=told.append)
    assert told == found
    states = {item.plugin.partition(":")[0]: item for item in found if item.state != "duplicate"}
    ours = {name for name in states if name.startswith("decodekit-")}
    assert {states[name].state for name in ours} == {"disabled"}
    expected = {
        "kit-broken": ("broken", "ZeroDivisionError: division by zero", "pip install --upgrade kit-broken"),
        "kit-exits": (
            "broken",
            "its import ends the process (exit code 3)",
            "decodekit plugins disable kit-exits",
        ),
        "kit-future": ("incompatible", "API_VERSION=9", "pip install --upgrade kit-future decodekit-core"),
        "kit-hangs": ("hangs", "its import takes over 2 s", "decodekit plugins disable kit-hangs"),
        "kit-missing": ("missing library", "No module named", "pip install no_such_library"),
        "kit-needy": (
            "missing library",
            "needy can't be used without no-such>=1",
            "pip install 'no-such>=1'",
        ),
        "kit-off": ("disabled", "", "decodekit plugins enable kit-off"),
        "kit-ok": ("ok", "", ""),
        "kit-old": ("incompatible", "it needs decodekit-core<0.0.1", "pip install --upgrade kit-old"),
        "kit-slow": ("slow", "a plugin should import late", "decodekit plugins disable kit-slow"),
        "kit-talks": ("ok", "", ""),
        "kit-twin-a": ("ok", "", ""),
        "kit-twin-b": ("ok", "", ""),
    }
    assert set(expected) == set(states) - ours
    for name, (state, problem, remedy) in expected.items():
        item = states[name]
        assert (item.state, problem in item.problem, item.remedy.startswith(remedy)) == (state, True, True), (
            item
        )
        assert item.healthy == (state in ("ok", "slow", "disabled"))
    (clash,) = (item for item in found if item.state == "duplicate")
    assert clash.problem.startswith("processors/mild is claimed by kit-twin-a:plug and kit-twin-b:plug")
    assert clash.remedy == "decodekit plugins disable kit-twin-b"


@pytest.mark.parametrize(
    ("module", "requirements", "remedy"),
    [
        ("PIL", ("attrs", "no-such-pillow>=9"), "pip install 'no-such-pillow>=9'"),
        (
            "no_such",
            ("no-such>=1; python_version >= '3.9'", "other-such"),
            """pip install 'no-such>=1; python_version >= '"'"'3.9'"'"'' other-such""",
        ),
        (
            "PIL",
            ("no-such; extra == 'more'",),
            "pip install pillow  # if that is the package of the module PIL",
        ),
        ("google", (), "pip install protobuf  # if that is the package of the module google"),
        ("soft", (), "pip install soft  # if that is the package of the module soft"),
    ],
)
def test_a_missing_module_is_installed_by_the_name_of_its_package(
    install_plugin, tmp_path, module, requirements, remedy
):
    install_plugin("kit-needs", "")
    metadata = tmp_path / "kit_needs-1.2.dist-info" / "METADATA"
    lines = "".join(f"Requires-Dist: {line}\n" for line in requirements)
    metadata.write_text(metadata.read_text() + lines)
    (point,) = (point for point in points() if point.dist.name == "kit-needs")
    answer = {"entries": [], "failures": [["No module named ...", module]], "seconds": 0.1}
    assert [item.remedy for item in _findings(point, answer, slow=1)] == [remedy]


def test_without_fork_the_worker_itself_is_the_victim(patients, monkeypatch):
    worker = "import os; del os.fork; from decodekit.doctor import probe; probe()"
    monkeypatch.setattr("decodekit.doctor._WORKER", worker)
    monkeypatch.setattr("decodekit.doctor.GRACE_SECONDS", 0)
    monkeypatch.setattr(
        "decodekit.doctor.points", lambda: [point for point in points() if point.dist.name in TWO]
    )
    found = diagnose(seconds=2)
    assert [(item.plugin, item.state) for item in found] == [
        ("kit-exits:plug", "broken"),
        ("kit-ok:plug", "ok"),
    ]


@pytest.mark.parametrize(
    ("worker", "problem"),
    [
        ("raise SystemExit(7)", r"ended \(exit code 7\)"),
        ("import os; os.kill(os.getpid(), 9)", r"ended \(signal 9\)"),
        ("import time; time.sleep(600)", "took over 0.5 s"),
    ],
)
def test_a_worker_that_does_not_start_is_no_plugins_fault(install_plugin, mild, monkeypatch, worker, problem):
    install_plugin("kit-ok", mild("fine", "Fine"))
    monkeypatch.setattr("decodekit.doctor._WORKER", worker)
    if "sleep" in worker:
        monkeypatch.setattr("decodekit.doctor.START_SECONDS", 0.5)
    with pytest.raises(PluginError, match=f"{problem} while it started.* to see why"):
        diagnose(seconds=2)


def test_a_question_that_was_never_read_does_not_break_the_end():
    worker = _Worker.start()
    worker.process.kill()
    worker.process.wait()
    with contextlib.suppress(OSError):
        worker.ask("kit-ok:plug", 2)
    assert worker.stop() == -9


TWO = {"kit-exits", "kit-ok"}

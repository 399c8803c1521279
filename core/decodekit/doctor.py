"""The doctor: what is wrong with the installed plugins, found without letting them into this process.

A worker process imports decodekit once, and each plugin in a child of its own, and says what came of it.
Where a system can't fork, the worker itself imports them; when one takes it down, that one alone is
blamed, and a new worker goes on with the next.
"""

import contextlib
import importlib.util
import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from typing import Any

import attrs
from packaging.requirements import InvalidRequirement, Requirement

from decodekit.discovery import disabled_by_environment, key_of, load_point, names_of, origin_of, points
from decodekit.errors import DamagedCacheError, PluginError
from decodekit.requirements import missing_requirements
from decodekit.settings import disabled_plugins, normal_name

__all__ = ["Finding", "diagnose", "probe"]

START_SECONDS = 120.0
"""How long the worker may take to import decodekit itself."""
GRACE_SECONDS = 5.0
"""How much longer than a plugin the worker itself may take to answer."""
_WORKER = "from decodekit.doctor import probe; probe()"


@attrs.frozen
class Finding:
    """What the doctor has to say about one plugin.

    Attributes:
        plugin: ``distribution:entry-point``.
        state: "ok", "disabled", "slow", "broken", "duplicate", "incompatible", "missing library",
            "not allowed" or "hangs".
        problem: what is wrong; empty when nothing is.
        remedy: the command that mends it; empty when nothing is wrong.
        names: what it brings, as ``kind/name``.
        seconds: how long its import took.
    """

    plugin: str
    state: str
    problem: str = ""
    remedy: str = ""
    names: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def healthy(self) -> bool:
        """Whether it can be used, or is kept out on purpose."""
        return self.state in ("ok", "disabled", "slow")


def diagnose(
    *, seconds: float = 20.0, slow: float = 2.0, progress: Callable[[Finding], None] = lambda finding: None
) -> list[Finding]:
    """Look at every entry point of the group ``decodekit``.

    Args:
        seconds: how long one plugin may take; then it is said to hang.
        slow: from how many seconds on an import is called slow.
        progress: is told each finding as soon as it is there; clashes of names come last.

    Returns:
        At least one finding for each plugin, in the order of distribution and entry point.

    Raises:
        PluginError: the process that imports plugins can't even start.
    """
    off = _disabled()
    found: list[Finding] = []

    def add(finding: Finding) -> None:
        found.append(finding)
        progress(finding)

    asked = []
    for point in points():
        if names_of(point) & off:
            add(Finding(key_of(point), "disabled", "", f"decodekit plugins enable {origin_of(point)[0]}"))
        elif finding := _incompatible(point):
            add(finding)
        else:
            asked.append(point)
    for point, answer in _answers(asked, seconds):
        for finding in _findings(point, answer, slow):
            add(finding)
    for finding in _clashes(found):
        add(finding)
    return found


def probe() -> None:
    """The worker: reads questions from standard input, a line of JSON each, and answers likewise.

    Where the system can fork, each plugin is imported in a child, so that none costs the worker.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # what a plugin prints is no answer
    known = {key_of(point): point for point in points()}
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        key, seconds = json.loads(line)
        if not hasattr(os, "fork"):
            print(json.dumps(_loaded(known[key])), file=answers, flush=True)
            continue
        child = os.fork()
        if child == 0:
            print(json.dumps(_loaded(known[key])), file=answers, flush=True)
            os._exit(0)
        trouble = _wait(child, seconds)
        if trouble is not None:
            print(json.dumps(trouble), file=answers, flush=True)


def _loaded(point: EntryPoint) -> dict[str, Any]:
    found = load_point(point)
    return {
        "entries": [[entry.kind, entry.name, *_needs(entry.cls)] for entry in found.entries],
        "failures": [[failure.reason, failure.missing] for failure in found.failures],
    }


def _wait(child: int, seconds: float) -> dict[str, str] | None:
    """What went wrong with a child; None when it has answered."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return None if code == 0 else {"state": "broken", "problem": _death(code)}
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return _hangs(seconds)


def _hangs(seconds: float) -> dict[str, str]:
    return {"state": "hangs", "problem": f"its import takes over {seconds:g} s"}


def _needs(cls: Any) -> list[str]:
    """The libraries that a class says it needs (``REQUIRES``) and that are not installed."""
    wanted = getattr(cls, "REQUIRES", {})
    return [needed for name, needed in wanted.items() if importlib.util.find_spec(name) is None]


@attrs.define
class _Worker:
    """A process that runs `probe`, with its answers in a queue."""

    process: Any
    lines: "queue.Queue[str | None]"

    @classmethod
    def start(cls) -> "_Worker":
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        lines: queue.Queue[str | None] = queue.Queue()

        def read() -> None:
            for line in process.stdout or ():
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        return cls(process, lines)

    def answer(self, seconds: float) -> Any:
        """The next answer; None when the process has died, TimeoutError when it says nothing."""
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        return None if line is None else json.loads(line)

    def wait_until_ready(self) -> None:
        """Wait until it has imported decodekit.

        Raises:
            PluginError: it ended instead, or takes too long.
        """
        try:
            if self.answer(START_SECONDS) is not None:
                return
            self.process.wait(GRACE_SECONDS)
            trouble = f"ended ({_code(self.stop())})"
        except (TimeoutError, subprocess.TimeoutExpired):
            trouble = f"took over {START_SECONDS:g} s"
        command = shlex.join(self.process.args)
        message = (
            f"the doctor's own process {trouble} while it started, before it imported a plugin: run "
            f"`{command} < {os.devnull}` to see why"
        )
        raise PluginError(message)

    def ask(self, key: str, seconds: float) -> None:
        self.process.stdin.write(json.dumps([key, seconds]) + "\n")
        self.process.stdin.flush()

    def stop(self) -> int:
        """End the process; its exit code."""
        with contextlib.suppress(OSError):  # what a dead process has not read yet
            self.process.stdin.close()
        self.process.kill()
        code: int = self.process.wait()
        self.process.stdout.close()
        return code


def _answers(points: Iterable[EntryPoint], seconds: float) -> Iterator[tuple[EntryPoint, dict[str, Any]]]:
    """What the worker says of each plugin; ``{"state": ...}`` where it could not say anything."""
    worker = None
    try:
        for point in points:
            if worker is None:
                worker = _Worker.start()
                worker.wait_until_ready()
            started = time.perf_counter()
            try:
                worker.ask(key_of(point), seconds)
                answer = worker.answer(seconds + GRACE_SECONDS)
            except TimeoutError:
                worker.stop()
                worker, answer = None, _hangs(seconds)
            except OSError:
                answer = None
            if answer is None and worker is not None:
                code = worker.stop()
                worker, answer = None, {"state": "broken", "problem": _death(code)}
            yield point, {**(answer or {}), "seconds": time.perf_counter() - started}
    finally:
        if worker is not None:
            worker.stop()


def _death(code: int) -> str:
    return f"its import ends the process ({_code(code)})"


def _code(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _findings(point: EntryPoint, answer: dict[str, Any], slow: float) -> Iterator[Finding]:
    key, distribution = key_of(point), origin_of(point)[0]
    seconds = answer["seconds"]
    out = f"decodekit plugins disable {distribution}"
    if "state" in answer:
        yield Finding(key, answer["state"], answer["problem"], out, seconds=seconds)
        return
    names = tuple(f"{kind}/{name}" for kind, name, *_ in answer["entries"])
    for reason, missing in answer["failures"]:
        if missing:
            yield Finding(key, "missing library", reason, _install(point, missing), names, seconds)
        elif "allow-list" in reason:
            yield Finding(
                key, "not allowed", reason, f"decodekit plugins allow {distribution}", names, seconds
            )
        elif "API_VERSION" in reason:
            remedy = f"pip install --upgrade {distribution} decodekit-core"
            yield Finding(key, "incompatible", reason, remedy, names, seconds)
        else:
            yield Finding(
                key, "broken", reason, f"pip install --upgrade {distribution}  # or: {out}", names, seconds
            )
    if answer["failures"]:
        return
    absent = sorted({need for _, _, *needs in answer["entries"] for need in needs})
    if absent:
        names_of = ", ".join(name for _, name, *needs in answer["entries"] if needs)
        problem = f"{names_of} can't be used without {', '.join(absent)}"
        yield Finding(key, "missing library", problem, f"pip install {shlex.join(absent)}", names, seconds)
    elif seconds > slow:
        problem = f"its import takes {seconds:.1f} s, before every command: a plugin should import late"
        yield Finding(key, "slow", problem, out, names, seconds)
    else:
        yield Finding(key, "ok", names=names, seconds=seconds)


def _install(point: EntryPoint, module: str) -> str:
    """The command that brings a missing module.

    Its package may have another name, which nothing tells but the plugin's own requirements.
    """
    absent = missing_requirements((point.dist.requires if point.dist else None) or ())
    if absent:
        return f"pip install {shlex.join(absent)}"
    package = _PACKAGES.get(module, module)
    return f"pip install {package}  # if that is the package of the module {module}"


_PACKAGES = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "google": "protobuf",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
"""Packages that plugins of language models often need, by the names of their modules where these differ."""


def _clashes(found: Iterable[Finding]) -> list[Finding]:
    owners: dict[str, list[str]] = {}
    for finding in found:
        for name in finding.names:
            if finding.plugin not in owners.setdefault(name, []):
                owners[name].append(finding.plugin)
    clashes = []
    for name, plugins in owners.items():
        if len(plugins) > 1:
            last = plugins[-1]
            problem = f"{name} is claimed by {' and '.join(plugins)}: using the name is an error"
            remedy = f"decodekit plugins disable {last.partition(':')[0]}"
            clashes.append(Finding(last, "duplicate", problem, remedy))
    return clashes


def _incompatible(point: EntryPoint) -> Finding | None:
    """A distribution whose requirements name another version of ours than the installed one."""
    for line in (point.dist.requires if point.dist else None) or ():
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue
        if not normal_name(wanted.name).startswith("decodekit") or wanted.marker is not None:
            continue
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            problem = f"it needs {line}, which is not installed"
            return Finding(key_of(point), "incompatible", problem, f"pip install '{line}'")
        if not wanted.specifier.contains(installed, prereleases=True):
            problem = f"it needs {line}, and {installed} is installed"
            remedy = f"pip install --upgrade {origin_of(point)[0]} '{line}'"
            return Finding(key_of(point), "incompatible", problem, remedy)
    return None


def _disabled() -> set[str]:
    try:
        return disabled_by_environment() | set(disabled_plugins())
    except DamagedCacheError:  # the listing of plugins tells of it
        return disabled_by_environment()

"""The output of a batch: one JSON object a line, appended as prompts end, that a later run goes on from."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import attrs
from filelock import FileLock, Timeout

from decodekit.errors import OutputError, ParameterError

__all__ = ["Records", "fingerprint", "open_records"]

_SYNC_SECONDS = 5.0
"""So much work may be lost when the machine, and not only the process, goes down."""


def fingerprint(content: bytes) -> dict[str, Any]:
    """What tells an input apart from others; one that has only grown since is told to be the same."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@attrs.define(eq=False)
class Records:
    """The lines of an output file.

    Attributes:
        path: the file.
        done: the numbers of the input's lines that are there, and whether each has an error.
    """

    path: Path
    done: dict[int, bool]
    _file: FileIO
    _synced: float = attrs.field(factory=time.monotonic)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record, whole or not at all, and past what a kill of the process can take back.

        Raises:
            OutputError: the disk is full, or something else keeps it from being written.
        """
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise self._failure(error) from error
        self.done[record["line"]] = "error" in record
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    @property
    def failed(self) -> int:
        """How many lines have errors."""
        return sum(self.done.values())

    def sync(self) -> None:
        """Have everything on the disk.

        Raises:
            OutputError: that failed.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error
        self._synced = time.monotonic()

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.path} can't be written: {error.strerror}; its {len(self.done)} lines are kept: make "
            "room, and give the same command again to go on"
        )


@contextlib.contextmanager
def open_records(
    path: Path, settings: Mapping[str, Any], content: bytes, *, overwrite: bool
) -> Iterator[Records]:
    """Open an output file to go on with it, or a new one.

    Beside it stands ``<path>.settings.json`` with what it was made with.

    Args:
        path: the file.
        settings: everything that its records depend on.
        content: the input.
        overwrite: forget what is there.

    Raises:
        ParameterError: it was made with other settings or of another input, is no output of this command, or
            another process writes it.
        OutputError: it can't be written.
    """
    beside = Path(f"{path}.settings.json")
    with _alone(path):
        try:
            done = {} if overwrite else _read(path, beside, settings, content)
            if not done:
                _note(beside, {**settings, "input": fingerprint(content)})
            file = open(path, "ab" if done else "wb", buffering=0)  # noqa: SIM115  # it is closed below
        except OSError as error:
            message = f"{path} can't be written: {error.strerror}: choose a file in a folder that can be"
            raise OutputError(message) from error
        with file:
            records = Records(path, done, file)
            try:
                yield records
            except BaseException:
                with contextlib.suppress(OutputError):  # what came first is told
                    records.sync()
                raise
            records.sync()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes out."""
    lock = FileLock(f"{path}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        if not os.path.exists(lock.lock_file):
            message = f"{path} can't be written: no file can be made in its folder; choose another one"
            raise OutputError(message) from None
        message = f"another process is writing {path}: wait for it, or choose another file"
        raise ParameterError(message) from None
    except OSError as error:
        message = f"{path} can't be written: {error.strerror}: choose a file in a folder that can be"
        raise OutputError(message) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()


def _note(beside: Path, values: Mapping[str, Any]) -> None:
    """Write the settings, whole or not at all."""
    part = beside.with_name(f"{beside.name}.part")
    part.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(part, beside)


def _read(path: Path, beside: Path, settings: Mapping[str, Any], content: bytes) -> dict[int, bool]:
    """The lines that an output has, see `Records`; a last line that was not finished is cut off."""
    if not path.exists() or not path.stat().st_size:
        return {}
    found = path.read_bytes()
    whole = found[: found.rfind(b"\n") + 1]
    done = dict(_entry(path, place, line) for place, line in enumerate(whole.split(b"\n")[:-1], start=1))
    if not done and not beside.exists():
        raise ParameterError(_foreign(path, "it has no whole line"))
    if done:
        _compare(path, beside, settings, content)
    if len(whole) < len(found):
        os.truncate(path, len(whole))
    return done


def _entry(path: Path, place: int, line: bytes) -> tuple[int, bool]:
    try:
        record = json.loads(line)
        number = record["line"]
    except (ValueError, TypeError, KeyError):
        number = None
    if type(number) is not int:
        raise ParameterError(_foreign(path, f"its line {place} is no record"))
    return number, "error" in record


def _foreign(path: Path, why: str) -> str:
    advice = "choose another file, or add --overwrite"
    return f"{path} is there and is no output of decodekit batch ({why}): {advice}"


def _compare(path: Path, beside: Path, settings: Mapping[str, Any], content: bytes) -> None:
    """Raise where the records that are there are not what the command would write."""
    try:
        noted = json.loads(beside.read_text(encoding="utf-8"))
        given = noted.pop("input")
        size, digest = given["bytes"], given["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ParameterError(_foreign(path, f"{beside.name} is missing or damaged")) from None
    wanted = json.loads(json.dumps(settings))
    other = [name for name in {**noted, **wanted} if noted.get(name) != wanted.get(name)]
    if other:
        told = "; ".join(f"{name} was {noted.get(name)!r} and is {wanted.get(name)!r}" for name in other)
        message = (
            f"{path} was made with other settings ({told}): give the same ones to go on, choose another "
            "file, or add --overwrite to start anew"
        )
        raise ParameterError(message)
    grown = content[:size] if content[size : size + 1] in (b"", b"\n", b"\r") else b""
    if content[:size].endswith(b"\n"):
        grown = content[:size]
    if fingerprint(grown) != {"bytes": size, "sha256": digest}:
        message = (
            f"{path} was made of another input, or the input has changed since, other than by lines at its "
            "end: choose another file, or add --overwrite to start anew"
        )
        raise ParameterError(message)

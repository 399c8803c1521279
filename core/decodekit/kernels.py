"""Compiles the forward of one module for a few tokens, keeps the result on disk, and loads it again.

A kernel is made by torch's ahead-of-time compiler, without the weights: they are its inputs, so that one
kernel serves all layers of one form, and training or moving weights needs no new one.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import attrs
import torch
import transformers
from filelock import FileLock
from torch import Tensor, nn

from decodekit.converted import cache_folder
from decodekit.errors import CapabilityError

__all__ = [
    "Body",
    "Kernel",
    "NotCompilableError",
    "announced",
    "compile_kernel",
    "digest",
    "file_digest",
    "kernel_files",
    "kernel_folder",
]


class NotCompilableError(CapabilityError):
    """A model, or this machine, for which there is no compiled step; the message says why."""


_OWN = ("kernels", "streamed", "tracing")  # the modules that decide what a kernel does
_OPTIONS = {
    "aot_inductor.compile_wrapper_opt_level": "O0",  # it runs once a layer; the loops are in another file
    "cpp.enable_floating_point_contract_flag": "fast",
}


def kernel_folder() -> Path:
    """Where kernels are kept."""
    return cache_folder() / "kernels"


def kernel_files() -> list[Path]:
    """All kernels on this machine."""
    return sorted(kernel_folder().glob("*.pt2"))


class Body(Protocol):
    """A module to compile: gives a list of tensors, and knows afterwards what they stand for."""

    @property
    def pattern(self) -> tuple[str, ...]:
        """What the tensors stand for, as in `Kernel`; known after a call."""


@attrs.frozen(eq=False)
class Kernel:
    """A compiled forward.

    Attributes:
        run: gives the outputs of a list of inputs, which it empties.
        pattern: what the module returns: "tensor", or "(" and then the word "tensor" or "None" an item.
    """

    run: Callable[[list[Tensor]], list[Tensor]]
    pattern: tuple[str, ...]

    @staticmethod
    def path(identity: Any) -> Path:
        """Where the kernel is kept that depends on ``identity``, a value that can be written as JSON."""
        return kernel_folder() / f"{digest([identity, _machine()])}.pt2"

    @classmethod
    def load(cls, path: Path) -> "Kernel":
        """Load a kernel from disk; takes milliseconds.

        Raises:
            NotCompilableError: the file is no kernel; it is deleted.
        """
        try:
            # What torch._inductor.aoti_load_package returns wraps this, and importing it takes seconds.
            loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
            pattern = tuple(loader.get_metadata()["decodekit_pattern"].split())
        except (RuntimeError, KeyError) as error:
            path.unlink(missing_ok=True)
            message = f"the kernel {path} can't be loaded ({error}); it is deleted, call again"
            raise NotCompilableError(message) from error
        return cls(loader.boxed_run, pattern)


def compile_kernel(body: Body, inputs: Sequence[Any], dynamic: Sequence[Any], path: Path) -> None:
    """Compile a module into a file, unless another process does so meanwhile.

    Args:
        body: a `Body`.
        inputs: example inputs: tensors, and lists of them.
        dynamic: in the form of ``inputs``, which sizes may differ later; as `torch.export.export` takes them.
        path: of `Kernel.path`.

    Raises:
        NotCompilableError: torch can't export or compile the module, or there is no compiler.
    """
    with _locked(path):
        if not path.exists():
            _compile(body, inputs, dynamic, path)


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Say on stderr what compiles and how long that takes, with a clock."""
    from rich.console import Console

    console = Console(file=sys.stderr, soft_wrap=True)
    console.print(f"Compiling {what}.", highlight=False, markup=False)
    with console.status("compiling") if console.is_terminal else contextlib.nullcontext():
        yield


def digest(value: Any) -> str:
    """A name for a value that can be written as JSON."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def file_digest(path: str) -> str:
    """A name for what a file says."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:32]


@functools.cache
def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return digest([platform.machine(), flags, torch.backends.cpu.get_cpu_capability()])


def _machine() -> list[Any]:
    versions = [torch.__version__, transformers.__version__]
    own = [file_digest(str(Path(__file__).with_name(f"{name}.py"))) for name in _OWN]
    return [*versions, *own, _cpu(), torch.get_num_threads() > 1]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / "lock"):
            yield
    except OSError as error:
        message = (
            f"kernels can't be written to {path.parent} ({error}): free some room there, or set "
            "DECODEKIT_CACHE_DIR to another folder"
        )
        raise NotCompilableError(message) from error


def _compile(body: Body, inputs: Sequence[Any], dynamic: Sequence[Any], path: Path) -> None:
    """Export, compile, and put the package in its place by one rename."""
    import torch._inductor as inductor

    with tempfile.TemporaryDirectory(dir=path.parent, prefix="unfinished-") as folder:
        unfinished = os.path.join(folder, "kernel.pt2")
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # torch's own, about its own
                program = torch.export.export(
                    cast("nn.Module", body), tuple(inputs), dynamic_shapes=tuple(dynamic), strict=False
                )
                options = {**_OPTIONS, "aot_inductor.metadata": {"decodekit_pattern": " ".join(body.pattern)}}
                inductor.aoti_compile_and_package(program, package_path=unfinished, inductor_configs=options)
        except NotCompilableError:
            raise
        except Exception as error:  # whatever the exporter or the compiler meets: the model runs without
            raise NotCompilableError(_reason(error)) from error
        os.replace(unfinished, path)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "InvalidCxxCompiler" in type(error).__name__ or any(
        "No working C++ compiler" in line for line in lines
    ):
        return "there is no C++ compiler: install one (on Debian: apt install g++)"
    return f"torch can't compile it ({type(error).__name__}: {lines[0] if lines else 'no message'})"

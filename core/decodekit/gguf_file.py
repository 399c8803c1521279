"""Models in GGUF files: unpacked once into the cache, in the dtype that is asked for."""

import hashlib
import re
from pathlib import Path

import torch

from decodekit.converted import cache_folder, convert, unpack_gguf, verify
from decodekit.errors import CapabilityError, DecodekitError, ModelNotFoundError

__all__ = ["converted_gguf", "is_gguf"]

_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


def is_gguf(name: str) -> bool:
    """Whether this is the name of a GGUF file, here or on the hub."""
    return name.lower().endswith(".gguf")


def converted_gguf(source: Path, dtype: torch.dtype) -> Path:
    """Return the folder of a GGUF's model and tokenizer, converting it first when it isn't there.

    A file that has changed is converted again. The weights are dequantized: a backend can quantize them anew.

    Args:
        source: the file.
        dtype: of the weights; float32 holds the values of the file exactly.

    Raises:
        ModelNotFoundError: it is not a GGUF file, or transformers can't read its architecture.
        CapabilityError: it is one of several parts.
        DamagedCacheError: the cache is incomplete or can't be written; the message says what mends it.
    """
    _check(source)
    status = source.stat()
    key = hashlib.sha256(f"{source.resolve()}|{status.st_size}|{status.st_mtime_ns}".encode()).hexdigest()
    name = str(dtype).removeprefix("torch.")
    folder = cache_folder() / f"gguf-{source.stem}-{name}-{key[:12]}"

    def write(file: Path, unfinished: Path) -> None:
        unpack_gguf(file, unfinished, dtype, f"{file.name} is converted to {name} once, into {folder}.")

    if not folder.exists():
        try:
            convert(folder, source, {"source": str(source)}, write)
        except DecodekitError:
            raise
        except Exception as error:  # the readers of transformers, tokenizers and gguf raise all kinds
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            message = f"the GGUF file {source} can't be read by transformers: {reason}"
            raise ModelNotFoundError(message) from error
    verify(folder)
    return folder


def _check(source: Path) -> None:
    if _PART.search(source.name):
        message = (
            f"{source.name} is one of several parts: merge them first, "
            "e.g. with `llama-gguf-split --merge FIRST_PART WHOLE`"
        )
        raise CapabilityError(message)
    with source.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            message = f"{source} is not a GGUF file: it does not begin with the letters GGUF"
            raise ModelNotFoundError(message)

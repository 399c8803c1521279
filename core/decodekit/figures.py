"""What a quantized model costs and what it is worth, measured on a text that comes with decodekit."""

import contextlib
import ctypes
import gc
import importlib.resources
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

from decodekit.generate import generate
from decodekit.load import load, model_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Figures", "measure", "sample_text"]

_POSITIONS = 256
"""Tokens of the text that are read."""
_NEW_TOKENS, _RUNS = 16, 3


@attrs.frozen
class Figures:
    """The figures of one model behind one backend.

    Attributes:
        backend: its name.
        options: of the backend, as they were given.
        bytes: of the model's parameters and buffers after the first forward pass.
        process_bytes: by how much the process has grown after the first forward pass, the libraries of
            the backend included; None where the system doesn't say.
        load_seconds: of `decodekit.load`, conversion to the backend's form included.
        tokens_per_second: of greedy decoding, one row, without the prompt; the median of three runs.
        perplexity: of the text; exp of the mean negative log-likelihood of a token.
        agreement: the share of positions of the text at which the most probable next token is that of the
            unquantized model; None when nothing was compared.
        argmax: the most probable next token at each position.
    """

    backend: str
    options: str
    bytes: int
    process_bytes: int | None
    load_seconds: float
    tokens_per_second: float
    perplexity: float
    agreement: float | None
    argmax: tuple[int, ...] = attrs.field(repr=False)


def sample_text() -> str:
    """The text on which figures are measured: English prose of some five hundred words."""
    file = importlib.resources.files("decodekit") / "texts" / "tide_mill.txt"
    return file.read_text(encoding="utf-8")


def measure(
    name_or_path: Any = None,
    quant: Any = "none",
    *,
    reference: Sequence[int] | None = None,
    device_map: Any = None,
    dtype: str | torch.dtype = "auto",
    **options: Any,
) -> Figures:
    """Load a model with a backend and measure it; in a process of its own, bytes are the model's alone.

    Args:
        name_or_path: as of `decodekit.load`.
        quant: the backend, as of `decodekit.load`.
        reference: ``argmax`` of the unquantized model's figures.
        device_map: as of `decodekit.load`.
        dtype: as of `decodekit.load`.
        **options: of the backend.

    Raises:
        DecodekitError: as of `decodekit.load`.
    """
    before = _process_bytes()
    started = time.perf_counter()
    model, tokenizer = load(name_or_path, quant=quant, device_map=device_map, dtype=dtype, **options)
    seconds = time.perf_counter() - started
    perplexity, argmax = _read(model, tokenizer)
    after = _process_bytes()
    agreement = None
    if reference is not None:
        agreement = statistics.fmean(mine == theirs for mine, theirs in zip(argmax, reference, strict=True))
    name, given = (quant, options) if isinstance(quant, str) else _named(quant, options)
    return Figures(
        backend=name,
        options=",".join(f"{key}={value}" for key, value in given.items()),
        bytes=model_bytes(model),
        process_bytes=after - before if before is not None and after is not None else None,
        load_seconds=seconds,
        tokens_per_second=_speed(model, tokenizer),
        perplexity=perplexity,
        agreement=agreement,
        argmax=argmax,
    )


def _named(quant: Any, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the options of a backend that was given as a pair, a class or an instance."""
    if isinstance(quant, tuple):
        name, given = _named(quant[0], {}) if not isinstance(quant[0], str) else (quant[0], {})
        return name, {**given, **quant[1], **options}
    if not isinstance(quant, type) and attrs.has(type(quant)):
        return quant.NAME, attrs.asdict(quant)
    return quant.NAME, options


@torch.inference_mode()
def _read(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> tuple[float, tuple[int, ...]]:
    """Perplexity of the text, and the most probable next token at each position."""
    ids = tokenizer(sample_text(), return_tensors="pt").input_ids[:, :_POSITIONS].to(model.device)
    logits = model(ids).logits[0, :-1].float()
    loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
    return float(loss.exp()), tuple(logits.argmax(-1).tolist())


def _speed(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> float:
    """Tokens a second of greedy decoding, the time of the prompt taken off."""
    ids = tokenizer(sample_text()[:40], return_tensors="pt").input_ids.to(model.device)

    def seconds(new: int) -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        started = time.perf_counter()
        generate(model, ids, strategy="greedy", max_new_tokens=new, eos_token_id=None, do_sample=False)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return time.perf_counter() - started

    seconds(2)  # kernels are chosen and weights repacked at the first pass
    pairs = [(seconds(1), seconds(1 + _NEW_TOKENS)) for _ in range(_RUNS)]
    return _NEW_TOKENS / statistics.median(long - short for short, long in pairs)


def _process_bytes() -> int | None:
    """Resident bytes of this process, once what it has freed is given back; None where nobody says."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # glibc keeps the temporaries of a conversion
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")

"""A quantized copy of the target."""

import contextlib
import copy
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import torch
from decodekit import (
    Batch,
    CallContext,
    Draft,
    Drafter,
    DrafterLaws,
    ParameterError,
    Pick,
    QuantBackend,
    param,
    resolve,
)
from transformers.utils import logging

from decodekit_strategies.drafters._autoregressive import decode_drafts

__all__ = ["Quantized"]

_COPIES: "weakref.WeakKeyDictionary[Any, dict[str, Any]]" = weakref.WeakKeyDictionary()
"""The copies of each model by their backend; they go when their model goes."""


@attrs.frozen
class Quantized(Drafter):
    """The target itself in fewer bits drafts; the copy is made at the first call, and kept with the model.

    Source: the target in 4 bits as its own drafter: Tiwari et al. (2025), arXiv 2502.10424, section 4.
    Range: quant names a quantization backend; confidence_threshold in [0, 1].
    Shape: one forward of the copy a drafted token, for all rows at once; weights in the backend's bits.
    Law: reports q, the processed distribution of each token.
    Raises: ParameterError when the target is quantized itself; MissingLibraryError when the backend's
        library is not there.
    """

    NAME: ClassVar[str] = "quantized"
    LAWS: ClassVar[DrafterLaws] = DrafterLaws(reports_q=True)

    quant: Any = param("bnb-nf4", help="The quantization backend: a name, or a pair (name, {option: value}).")
    confidence_threshold: float = param(
        0.4, range="[0, 1]", help="A draft ends with a token that the copy gives less than this."
    )
    _copy: Any = attrs.field(default=None, repr=False, eq=False)

    @property
    def models(self) -> Mapping[str, Any]:
        """The copy."""
        return {"draft": self._copy}

    def bind(self, model: Any, context: CallContext) -> "Quantized":
        """Make the copy, or take the one that an earlier call has made."""
        backend: QuantBackend = resolve("quant_backends", self.quant)
        copies = _COPIES.setdefault(model, {})
        if repr(backend) not in copies:
            copies[repr(backend)] = _quantized(model, backend)
        return attrs.evolve(self, copy=copies[repr(backend)])

    def draft(self, batch: Batch, lengths: Sequence[int], pick: Pick) -> Draft:
        """Decode a few tokens."""
        return decode_drafts(
            batch,
            lengths,
            pick,
            self.confidence_threshold,
            lambda drafts: batch.logits(drafts, session="draft", last=True),
        )


def _quantized(model: Any, backend: QuantBackend) -> Any:
    """The model as the backend loads it from its own weights; random numbers stay as they were."""
    if getattr(model, "is_quantized", False):
        message = (
            f"the drafter 'quantized' makes a copy of a model that is not quantized, and this "
            f"{type(model).__name__} is: pass a smaller copy as assistant_model instead"
        )
        raise ParameterError(message)
    backend.check(model.device)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), _without_bars():
        with _own_config(model):
            model.save_pretrained(folder)
        keywords = {"dtype": model.dtype, **backend.load_kwargs(model.dtype, model.device)}
        return backend.convert(type(model).from_pretrained(folder, **keywords)).to(model.device).eval()


@contextlib.contextmanager
def _own_config(model: Any) -> Iterator[None]:
    """Saving writes architectures and dtype into the config: it gets a copy of it."""
    config = model.config
    model.config = copy.deepcopy(config)
    try:
        yield
    finally:
        model.config = config


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of transformers, which would be about files that nobody asked for."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

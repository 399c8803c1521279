"""A quantization backend under test, and the models that it has loaded."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from hypothesis import strategies as st
from torch import Tensor
from transformers.utils import logging

from decodekit.load import load
from decodekit.params import params_of
from decodekit.quant_backend import QuantBackend
from decodekit.strategy import Strategy
from decodekit.testing import generators
from decodekit.testing.check import BrokenPromiseError
from decodekit.testing.quant_model import kit_folder

__all__ = ["QuantSubject", "logits_of", "unquantized", "without_bars"]


@attrs.frozen
class QuantSubject:
    """A backend class under test.

    Attributes:
        cls: the class.
        fixed: the only instance to look at, when the author gave one.
        examples: option values to choose from; empty when they come from the declared ranges.
        strategies: decoding strategies to try on top; empty for the installed ones.
        device_map: where the models go, as of `decodekit.load`.
    """

    cls: type[QuantBackend]
    fixed: QuantBackend | None = None
    examples: Sequence[Mapping[str, Any]] = ()
    strategies: Sequence[Strategy] = ()
    device_map: Any = None
    _loaded: dict[str, Any] = attrs.field(factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"quantization backend {self.cls.NAME or self.cls.__name__}"

    def declares(self, law: str) -> bool:
        """Whether its LAWS hold this promise."""
        return bool(getattr(self.cls.LAWS, law))

    def backends(self) -> st.SearchStrategy[QuantBackend]:
        """Instances with options from the examples or the declared ranges; the plain one comes first."""
        drawn = generators.instances(self.cls, self.name, self.fixed, self.examples)
        given = self.fixed is not None or self.examples
        if given or any(info.required for info in params_of(self.cls).values()):
            return drawn
        return st.just(self.cls()) | drawn

    def load(self, backend: QuantBackend) -> Any:
        """The kit's model behind the backend, loaded once; whatever it raises is a finding."""
        key = repr(backend)
        if key not in self._loaded:
            try:
                with without_bars():
                    self._loaded[key] = load(kit_folder(), quant=backend, device_map=self.device_map)[0]
            except Exception as error:
                message = f"{backend!r} can't load the kit's model, {type(error).__name__}: {error}"
                raise BrokenPromiseError(message) from error
        return self._loaded[key]


def unquantized(device_map: Any) -> Any:
    """The kit's model as it is."""
    with without_bars():
        return load(kit_folder(), device_map=device_map)[0]


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Dozens of tiny models are loaded: the progress bars of transformers would bury the report."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@torch.inference_mode()
def logits_of(model: Any, tokens: Tensor) -> Tensor:
    """Logits float32 [B, T, V] of one forward pass without a cache."""
    logits: Tensor = model(tokens.to(model.device), use_cache=False).logits
    return logits.float().cpu()

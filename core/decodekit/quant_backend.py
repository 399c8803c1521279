"""The contract of a quantization backend: how a model gets onto the machine in fewer bytes."""

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from decodekit.errors import MissingLibraryError
from decodekit.processor import API_VERSION

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["QuantBackend"]


class QuantBackend:
    """Base class of quantization backends; subclass it as an `attrs.frozen` class.

    A subclass names itself (``NAME``), declares its options with `decodekit.param`, the libraries
    that it imports (``REQUIRES``: import name -> pip requirement), and overrides `load_kwargs`
    (what transformers quantizes while it loads) or `convert` (what is done to a loaded model).
    """

    __slots__ = ()
    NAME: ClassVar[str] = ""
    API_VERSION: ClassVar[int] = API_VERSION
    REQUIRES: ClassVar[dict[str, str]] = {}

    def problems(self, device: torch.device) -> list[str]:
        """Why this backend can't be used on ``device`` here, each with its remedy; empty when it can."""
        return [
            f"the library {name} is missing: pip install '{requirement}'"
            for name, requirement in self.REQUIRES.items()
            if importlib.util.find_spec(name) is None
        ]

    def load_kwargs(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """Keyword arguments for ``from_pretrained``, e.g. ``{"quantization_config": ...}``."""
        return {}

    def convert(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """Return the loaded model in this backend's form; by default as it is."""
        return model

    def check(self, device: torch.device) -> None:
        """Raise `MissingLibraryError` with the first of the `problems`, when there is one."""
        problems = self.problems(device)
        if problems:
            message = f"quant={self.NAME!r} can't be used on {device}: {problems[0]}"
            raise MissingLibraryError(message)

"""The contract of a quantization backend: how a model gets onto the machine in fewer bytes."""

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import torch

from decodekit.errors import CapabilityError, MissingLibraryError
from decodekit.processor import API_VERSION

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["QuantBackend", "QuantLaws"]


@attrs.frozen(kw_only=True)
class QuantLaws:
    """What a backend promises; `decodekit.testing.check_quant_backend` measures it on a small model.

    Attributes:
        bits: the most bits of a linear weight, with its scales; None when weights are not made smaller.
        kl: the largest mean KL(unquantized || quantized) of the next token, in nats.
        noise: how far logits may move, in standard deviations of all logits, when a row is computed alone
            or from the cache instead of with others and at once.
        saves: whether ``save_pretrained`` and `decodekit.load` give a model with bit-equal logits.
        keeps_embeddings: whether embeddings and output layer keep their values and their tying.
    """

    bits: float | None = None
    kl: float = 1.0
    noise: float = 1e-3
    saves: bool = False
    keeps_embeddings: bool = True


class QuantBackend:
    """Base class of quantization backends; subclass it as an `attrs.frozen` class.

    A subclass names itself (``NAME``), declares its options with `decodekit.param`, the libraries
    that it imports (``REQUIRES``: import name -> pip requirement), the types of devices that it runs
    on (``DEVICES``) and its promises (``LAWS``), and overrides `load_kwargs` (what transformers
    quantizes while it loads) or `convert` (what is done to a loaded model).
    """

    __slots__ = ()
    NAME: ClassVar[str] = ""
    API_VERSION: ClassVar[int] = API_VERSION
    REQUIRES: ClassVar[dict[str, str]] = {}
    DEVICES: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    LAWS: ClassVar[QuantLaws] = QuantLaws()

    def problems(self, device: torch.device) -> list[str]:
        """Why this backend can't be used on ``device`` here, each with its remedy; empty when it can."""
        return self._missing_libraries() + self._wrong_device(device)

    def _missing_libraries(self) -> list[str]:
        return [
            f"the library {name} is missing: pip install '{requirement}'"
            for name, requirement in self.REQUIRES.items()
            if importlib.util.find_spec(name) is None
        ]

    def _wrong_device(self, device: torch.device) -> list[str]:
        if device.type in self.DEVICES:
            return []
        return [f"it runs on {' and '.join(self.DEVICES)} only: take another device_map, or another backend"]

    def load_kwargs(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """Keyword arguments for ``from_pretrained``, e.g. ``{"quantization_config": ...}``."""
        return {}

    def convert(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """Return the loaded model in this backend's form; by default as it is."""
        return model

    def check(self, device: torch.device) -> None:
        """Raise the first of the `problems`, when there is one.

        Raises:
            MissingLibraryError: a library is not installed.
            CapabilityError: the backend does not run on the device.
        """
        problems = self.problems(device)
        if problems:
            kind = MissingLibraryError if self._missing_libraries() else CapabilityError
            message = f"quant={self.NAME!r} can't be used on {device}: {problems[0]}"
            raise kind(message)

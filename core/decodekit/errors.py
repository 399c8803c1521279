"""Every error of decodekit.

Each derives from `DecodekitError` and from the built-in that fits, so both
``except DecodekitError`` and ``except ValueError`` do what a reader expects. A message names
the parameter, its value, what is allowed, and the next step.
"""

import difflib
import re
from collections.abc import Iterable

__all__ = [
    "CapabilityError",
    "DamagedCacheError",
    "DecodekitError",
    "DecodekitWarning",
    "DuplicateNameError",
    "EmptySupportError",
    "MissingLibraryError",
    "ModelNotFoundError",
    "ModelTooLargeError",
    "NonFiniteLogitsError",
    "OutputError",
    "ParameterError",
    "PluginError",
    "TrustError",
    "UnknownNameError",
    "UnsupportedArgumentError",
    "nearest",
]


class DecodekitError(Exception):
    """The root of all errors that decodekit raises on purpose."""


class DecodekitWarning(UserWarning):
    """Something that was asked for has no effect; the result is right."""


class ParameterError(DecodekitError, ValueError):
    """A parameter has a value outside its range or of the wrong type."""


class UnsupportedArgumentError(DecodekitError, ValueError):
    """An argument of transformers' generate that this version refuses by name."""


class UnknownNameError(DecodekitError, LookupError):
    """No installed plugin has the name that was asked for."""


class DuplicateNameError(DecodekitError, LookupError):
    """Two installed plugins claim the name that was asked for."""


class PluginError(DecodekitError, ImportError):
    """An installed plugin could not be loaded or breaks the plugin contract."""


class TrustError(DecodekitError, PermissionError):
    """Code that is not part of decodekit would run, and nobody has allowed it."""


class MissingLibraryError(DecodekitError, ImportError):
    """An optional library is needed and not installed; the message has the install line."""


class CapabilityError(DecodekitError, ValueError):
    """Two parts can't work together; raised before the first forward pass where they say what they need."""


class NonFiniteLogitsError(DecodekitError, ArithmeticError):
    """A row of logits holds NaN or +inf; the message names row and step."""


class EmptySupportError(DecodekitError, ValueError):
    """The processors left a row without any allowed token."""


class ModelNotFoundError(DecodekitError, OSError):
    """A model is neither a folder on this machine nor in the local hub cache."""


class ModelTooLargeError(DecodekitError, MemoryError):
    """A model does not fit into the memory of its device; the message says what would."""


class DamagedCacheError(DecodekitError, OSError):
    """A file in decodekit's cache folder can't be read; the message has the command that mends it."""


class OutputError(DecodekitError, OSError):
    """A result could not be written; what was written before is kept, and the message says how to go on."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest of ``known``, or an empty string."""
    likeness = {other: _likeness(name.lower(), other.lower()) for other in known if other[:1] != "_"}
    least = max(_ALIKE, max(likeness.values(), default=0.0) - _AS_GOOD)
    near = [each for each in likeness if likeness[each] >= least]
    matches = sorted(near, key=likeness.__getitem__, reverse=True)[:3]
    if not matches:
        return ""
    return " Did you mean " + " or ".join(map(repr, matches)) + "?"


_ALIKE = 0.6
"""What is less like a name has nothing to do with it."""
_AS_GOOD = 0.15
"""What is further from the best than this only distracts from it."""


def _likeness(name: str, other: str) -> float:
    """From 0 to 1; letters in the same order count, and so does a name that begins with the other, or has it
    as a word: "temp" for temperature, "nf4" for bnb-nf4."""
    ratio = difflib.SequenceMatcher(None, name, other).ratio()
    if min(len(name), len(other)) < 3:
        return ratio
    if name.startswith(other) or other.startswith(name):
        return max(ratio, 0.85)
    words, others = ({*re.split(r"[\W_]+", each)} - {""} for each in (name, other))
    return max(ratio, 0.8) if words and others and (words <= others or others <= words) else ratio

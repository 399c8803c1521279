"""Silences what optional libraries log while transformers imports them, and what no user can act on.

Imported before transformers, which imports torchao where that is installed.
"""

import logging

import torch

__all__: list[str] = []

# Logger -> the first letters of its message.
_KNOWN = {"torch.utils._pytree": "%s is an Enum subclass and is now natively supported"}
if not torch.cuda.is_available():
    _KNOWN["torchao"] = "Failed to load "  # kernels for a GPU that is not there


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_KNOWN[record.name])


for _name in _KNOWN:
    logging.getLogger(_name).addFilter(_is_news)

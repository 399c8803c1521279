"""The command line: ``decodekit generate``, ``decodekit plugins``, ``decodekit cache``."""

from decodekit.cli.commands import app, main

__all__ = ["app", "main"]

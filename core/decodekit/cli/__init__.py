"""The command line: ``decodekit generate``, ``batch``, ``plugins``, ``check``, ``new``, ``cache``."""

from decodekit.cli.commands import app, main

__all__ = ["app", "main"]

"""Registers what this package brings; its entry point in pyproject.toml names this module."""

from decodekit import Processor, hookimpl

from decodekit_near_top.near_top import NearTop


@hookimpl
def register_processors() -> list[type[Processor]]:
    """The processors of this package."""
    return [NearTop]

"""Registers the strategies of this package, as any third party's plugin would."""

from decodekit import Strategy, hookimpl

from decodekit_strategies.assisted import Assisted
from decodekit_strategies.beam import Beam
from decodekit_strategies.greedy import Greedy
from decodekit_strategies.sample import Sample


@hookimpl
def register_strategies() -> list[type[Strategy]]:
    """The built-in strategies, in the order of their names."""
    return [Assisted, Beam, Greedy, Sample]

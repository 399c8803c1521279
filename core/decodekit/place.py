"""Where in a chain a processor belongs, and how much of a row it must see."""

import enum

import attrs

__all__ = ["Phase", "Place", "Scope"]


class Phase(enum.StrEnum):
    """What a processor is for."""

    CLEAN = "clean"
    BIAS = "bias"
    PENALTY = "penalty"
    MASK = "mask"
    TEMPERATURE = "temperature"
    TRUNCATION = "truncation"
    SHAPE = "shape"
    WATERMARK = "watermark"
    NORMALIZE = "normalize"
    OTHER = "other"


class Scope(enum.Enum):
    """How much of a row a processor must see, so that a chain may show it less.

    ALL: the history, or the tokens by their ids. SUPPORT: the possible tokens in any order, whatever
    their ids and the history. HEAD: of these only the largest; it moves each logit by what these alone say,
    and keeps their order.
    """

    ALL = "all"
    SUPPORT = "support"
    HEAD = "head"


@attrs.frozen(kw_only=True)
class Place:
    """What a processor declares of its place in a chain; the kit checks ``scope``.

    Attributes:
        phase: what it is for.
        scope: how much of a row it must see.
        whole: it measures the whole vocabulary, so no truncation may stand before it.
        last: whatever changes the law after it would spoil its own.
        rival: what it steers; a chain has one processor at most that names it.
    """

    phase: Phase = Phase.OTHER
    scope: Scope = Scope.ALL
    whole: bool = False
    last: bool = False
    rival: str = ""

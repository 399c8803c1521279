"""The decoding methods that transformers moved out of itself, and how to get them here."""

import re

import attrs

from decodekit.registry import registry

__all__ = ["MOVED", "Moved", "how_to_get"]


@attrs.frozen
class Moved:
    """One method that lives in a hub repository since transformers 4.57.

    Attributes:
        title: what people call it.
        repo: the hub id of the repository with its code.
        strategy: the name of the strategy that does the same here, once a package brings it.
        aliases: other words for it: names of strategies, modes of transformers, parts of hub ids.
    """

    title: str
    repo: str
    strategy: str | None
    aliases: tuple[str, ...]


MOVED = (
    Moved(
        "contrastive search",
        "transformers-community/contrastive-search",
        "contrastive",
        ("contrastive", "contrastive_search"),
    ),
    Moved("DoLa", "transformers-community/dola", "dola", ("dola", "dola_generation")),
    Moved(
        "group beam search",
        "transformers-community/group-beam-search",
        "diverse_beam",
        ("group_beam", "group_beam_search", "diverse_beam", "diverse_beam_search"),
    ),
    Moved(
        "constrained beam search",
        "transformers-community/constrained-beam-search",
        "constrained_beam",
        ("constrained_beam", "constrained_beam_search"),
    ),
    Moved("sink cache", "transformers-community/sink_cache", None, ("sink", "sink_cache")),
)


def how_to_get(name: str) -> str | None:
    """How to decode with a method that transformers moved out; None when ``name`` is none of them.

    Args:
        name: a name of the method, transformers' mode for it, or its hub id.
    """
    plain = re.sub(r"[-_ ]+", "_", name.rpartition("/")[2].lower())
    method = next((item for item in MOVED if plain in item.aliases or name == item.repo), None)
    if method is None:
        return None
    ways = []
    if method.strategy and method.strategy in registry().entries("strategies"):
        ways.append(f"pass strategy={method.strategy!r}, which is installed")
    ways.append(
        f"pass custom_generate={method.repo!r} with trust_remote_code=True, which downloads and runs its code"
    )
    ways.append("pass the path of a copy of that repository, with trust_remote_code=True")
    place = f"https://hf.co/{method.repo}"
    return f"transformers moved {method.title} out, to {place}. To get it: {'; or '.join(ways)}."

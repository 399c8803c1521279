"""``decodekit explain``: what a chain of processors does, in which order, and what it costs."""

import json
from typing import Annotated

import attrs
import typer
from transformers import GenerationConfig

from decodekit.chain import Chain
from decodekit.chain_config import chain_of
from decodekit.cli.arguments import read_settings
from decodekit.errors import ParameterError, nearest

__all__ = ["explain"]


def explain(
    chain: Annotated[
        str | None,
        typer.Argument(help="A chain, e.g. 'repetition_penalty=1.1 > top_k=50 > min_p=0.05'."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Instead: a field of the generation configuration."),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(min=2, help="Measure the chain as well, on random logits of this width.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Measure it for so many rows.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Explain a chain: what each processor does, what it looks at, and what is dropped."""
    if (chain is None) == (not settings):
        message = "give a chain, or fields of the configuration with --set, and not both"
        raise ParameterError(message)
    parsed = Chain.parse(chain) if chain is not None else _configured(settings or [])
    explanation = parsed.explain(vocab_size, rows)
    typer.echo(json.dumps(attrs.asdict(explanation), indent=2) if as_json else str(explanation))


def _configured(settings: list[str]) -> Chain:
    fields = read_settings(settings)
    known = GenerationConfig().to_dict()
    for name in fields:
        if name not in known:
            message = f"--set {name} is no field of the generation configuration."
            raise ParameterError(message + nearest(name, sorted(known)))
    return chain_of(GenerationConfig(do_sample=True, **fields))

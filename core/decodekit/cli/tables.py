"""Tables of the installed plugins, made from their parameter classes."""

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from decodekit.contract import Kind
from decodekit.entry import Entry
from decodekit.registry import registry

__all__ = ["as_data", "plugin_table"]


def plugin_table(kind: Kind, title: str) -> Group:
    """Every plugin of a kind with where it comes from, and its parameters with range and default."""
    parts: list[RenderableType] = [Text(title, style="bold")]
    for entry in _entries(kind):
        summary = entry.summary.replace("``", "")
        head = Text.assemble((entry.name, "bold cyan"), "  ", summary, (f"  [{entry.origin}]", "dim"))
        parts.append(Padding(head, (0, 0, 0, 2), expand=False))
        grid = Table.grid(padding=(0, 2, 0, 0))
        for name, info in entry.params.items():
            default = "required" if info.required else f"default {info.default!r}"
            grid.add_row(Text(name, style="cyan"), Text(f"{info.allowed}; {default}. {info.help}"))
        if entry.params:
            parts.append(Padding(grid, (0, 0, 0, 6), expand=False))
    return Group(*parts)


def as_data(kind: Kind) -> list[dict[str, Any]]:
    """The same as data for JSON; a required parameter has no ``default``."""
    return [
        {
            "name": entry.name,
            "summary": entry.summary,
            "distribution": entry.distribution,
            "version": entry.version,
            "class": f"{entry.module}.{entry.cls.__qualname__}",
            "parameters": [
                {"name": name, "type": info.type_name, "allowed": info.allowed, "help": info.help}
                | ({} if info.required else {"default": info.default})
                for name, info in entry.params.items()
            ],
        }
        for entry in _entries(kind)
    ]


def _entries(kind: Kind) -> Iterable[Entry]:
    """All entries, those too whose name several plugins claim."""
    return (entry for entries in registry().entries(kind).values() for entry in entries)

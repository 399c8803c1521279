"""Write what the docs have from the code: the catalogue, the kit's properties, README's table, a plugin.

``python docs/generate.py`` writes them; with ``--check`` it writes nothing and fails when one is stale.
"""

import argparse
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import decodekit as dk
from decodekit.scaffold import plugin_files
from decodekit.testing.advice import ADVICE, Advice
from decodekit.testing.conformance import all_checks
from decodekit.testing.elsewhere import ELSEWHERE

ROOT = Path(__file__).parents[1]
KINDS = {
    "Strategies": ("decodekit-strategies", dk.strategies),
    "Drafters": ("decodekit-strategies", dk.drafters),
    "Processors": ("decodekit-processors", dk.processors),
    "Quantization backends": ("decodekit-quant-backends", dk.quant_backends),
}
TEMPLATE = ("processor", "near_top")
START, END = "<!-- members: written by docs/generate.py -->", "<!-- end of members -->"
HEAD = """<!-- Written by docs/generate.py from the classes; `make docs` writes it again. -->

# Catalogue

Every member of the three packages that come with decodekit. The same facts for what is installed on
your machine, plugins of others included: `decodekit plugins`.
"""
CONFORMANCE = """<!-- Written by docs/generate.py from the kit; `make docs` writes it again. -->

# What the conformance kit checks

Every property that the command line, the pytest plugin and the functions of `decodekit.testing` look at:
what must hold, why it matters, and what to do when it does not. A property with a law is checked when the
class declares that law in `LAWS`; the others hold for every plugin to which they apply. How to run the
kit, and how to read its reports: [Write a plugin](plugins.md#3-the-kit).
"""
_LABEL = re.compile(r"^(Source|Range|Shape|Keeps|Law|Needs|Raises):", re.M)


def members(kind: str) -> list[Any]:
    """The entries of one of our own packages, sorted by name; what else is installed stays out."""
    distribution, catalogue = KINDS[kind]
    return [entry for entry in catalogue().values() if entry.distribution == distribution]


def catalogue_page() -> str:
    """The whole of docs/catalogue.md."""
    parts = [HEAD]
    for kind in KINDS:
        parts.append(f"# {kind}\n")
        parts += [_section(entry) for entry in members(kind)]
    parts += [_glossary("Laws of processors", dk.Laws), _glossary("Laws of strategies", dk.StrategyLaws)]
    parts.append(_glossary("Laws of drafters", dk.DrafterLaws))
    parts.append(_glossary("Laws of quantization backends", dk.QuantLaws))
    return "\n".join(parts)


def conformance_page() -> str:
    """The whole of docs/conformance.md."""
    parts = [CONFORMANCE]
    for kind, checks in all_checks().items():
        parts.append(f"# {kind.replace('_', ' ').replace('quant ', 'quantization ').capitalize()}\n")
        for item in checks:
            advice = ADVICE.get(item.key, Advice())
            law = f" Law: `{item.law}`." if item.law else ""
            lines = [f"## {item.key}", "", f"{_prose(item.promise)}{law}", ""]
            lines += [f"* **Why it matters**: {advice.why}"] if advice.why else []
            parts.append("\n".join([*lines, f"* **What to do**: {advice.remedy}", ""]))
    parts.append("# Numbers without a check\n")
    parts += [f"* **{number}**: {_prose(text)}" for number, text in ELSEWHERE.items()]
    parts.append("")
    return "\n".join(parts)


def readme_table() -> str:
    """The table of members, with the markers around it."""
    lines = ["| name | what it does | parameters |", "|---|---|---|"]
    for kind in KINDS:
        lines.append(f"| **{kind}** | | |")
        for entry in members(kind):
            link = f"[`{entry.name}`](docs/catalogue.md#{entry.name})"
            parameters = ", ".join(f"`{name}`" for name in entry.params)
            lines.append(f"| {link} | {_prose(entry.summary)} | {parameters} |")
    return "\n".join([START, *lines, END])


def pages(root: Path) -> dict[Path, str]:
    """Each generated file of a tree with the text that it should have."""
    readme = root / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, found, after = rest.partition(END)
    if not found:
        message = f"{readme} lacks the lines {START!r} and {END!r}, between which the table of members goes"
        raise SystemExit(message)
    docs = root / "docs"
    template = {docs / "plugin_template" / path: text for path, text in plugin_files(*TEMPLATE)}
    return {
        docs / "catalogue.md": catalogue_page(),
        docs / "conformance.md": conformance_page(),
        readme: before + readme_table() + after,
        **template,
    }


def stale(root: Path) -> dict[Path, str]:
    """Those of the `pages` that are missing, or not what they should be."""
    return {
        path: text
        for path, text in pages(root).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def _section(entry: Any) -> str:
    free, *labelled = _LABEL.split(inspect.cleandoc(entry.cls.__doc__ or ""))
    lines = [f"## {entry.name}", ""]
    for paragraph in free.strip().split("\n\n"):
        lines += [_prose(paragraph), ""]
    pairs = zip(labelled[::2], labelled[1::2], strict=True)
    lines += [f"* **{label}**: {_prose(text)}" for label, text in pairs]
    if declared := _declared(entry.cls):
        lines.append(f"* **Declares**: {declared}")
    if entry.params:
        lines += ["", "| parameter | allowed | default | what it is |", "|---|---|---|---|"]
        lines += [_parameter(name, info) for name, info in entry.params.items()]
    return "\n".join([*lines, ""])


def _parameter(name: str, info: Any) -> str:
    default = "required" if info.required else f"`{info.default!r}`"
    return f"| `{name}` | {_prose(info.allowed)} | {default} | {_prose(info.help)} |"


def _declared(cls: Any) -> str:
    """The laws that a class declares, as text: `keeps_order`, `nested` in `top_k`."""
    laws = attrs.asdict(cls.LAWS) if hasattr(cls, "LAWS") else {}
    return ", ".join(
        f"`{name}`"
        if value is True
        else f"`{name}` {value}"
        if isinstance(value, float)
        else f"`{name}` {' and '.join(f'`{item}`' for item in value)}"
        if isinstance(value, tuple)
        else f"`{name}` in `{value}`"
        for name, value in laws.items()
        if value
    )


def _glossary(title: str, laws: Callable[..., Any]) -> str:
    """What each law means, from the docstring of the class that holds them."""
    _, _, attributes = inspect.cleandoc(laws.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.M)
    return "\n".join([f"# {title}\n", *(f"* `{name}`: {_prose(text)}" for name, text in entries), ""])


def _prose(text: str) -> str:
    """One line of Markdown, safe inside a table."""
    return re.sub(r"\s+", " ", text).replace("``", "`").replace("|", "\\|").strip()


def main() -> None:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check = parser.parse_args().check
    old = stale(ROOT)
    if check and old:
        names = ", ".join(path.relative_to(ROOT).as_posix() for path in old)
        message = f"stale: {names}; run `make docs`"
        raise SystemExit(message)
    for path, text in old.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

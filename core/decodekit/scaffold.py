"""A new plugin package: the files of one that works, with the author's name in them."""

import keyword
import re
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import attrs

from decodekit.contract import BASES, Kind
from decodekit.errors import ParameterError, nearest
from decodekit.registry import registry

__all__ = ["NEW_KINDS", "new_plugin", "plugin_files"]

NEW_KINDS: dict[str, Kind] = {
    "processor": "processors",
    "strategy": "strategies",
    "drafter": "drafters",
    "quant-backend": "quant_backends",
}
"""What the command line calls a kind -> the kind."""
_USAGE = {
    "processor": """import decodekit as dk

model, tokenizer = dk.load()
inputs = tokenizer("The sky is", return_tensors="pt")
ids = dk.generate(model, **inputs, do_sample=True, processors=["@@name@@"], seed=1, max_new_tokens=20)""",
    "strategy": """import decodekit as dk

model, tokenizer = dk.load()
inputs = tokenizer("The sky is", return_tensors="pt")
ids = dk.generate(model, **inputs, strategy="@@name@@", seed=1, max_new_tokens=20)""",
    "drafter": """import decodekit as dk

model, tokenizer = dk.load()
inputs = tokenizer("one two three one two", return_tensors="pt")
ids = dk.generate(model, **inputs, strategy="assisted", drafter="@@name@@", max_new_tokens=20)""",
    "quant-backend": """import decodekit as dk

model, tokenizer = dk.load(quant="@@name@@")""",
}
_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_TARGETS = {
    "pyproject.toml": "common/pyproject.toml",
    "README.md": "common/README.md",
    ".gitignore": "common/gitignore",
    ".github/workflows/test.yml": "common/ci.yml",
    "@@package@@/__init__.py": "common/init.py",
    "@@package@@/plugin.py": "common/plugin.py",
    "@@package@@/@@module@@.py": "{kind}/class.py",
    "tests/test_@@module@@.py": "{kind}/test.py",
}


@attrs.frozen
class _Names:
    """The names in a package, from the kind and the plugin's name."""

    kind: str
    name: str

    @property
    def values(self) -> dict[str, str]:
        """Placeholder -> text."""
        registered = NEW_KINDS[self.kind]
        module = self.name.replace("-", "_")
        return {
            "usage": _USAGE[self.kind].replace("@@name@@", self.name),
            "name": self.name,
            "module": module,
            "package": f"decodekit_{module}",
            "distribution": f"decodekit-{module.replace('_', '-')}",
            "cls": "".join(part.capitalize() for part in module.split("_")),
            "title": module.replace("_", " ").capitalize(),
            "noun": "quantization backend" if self.kind == "quant-backend" else self.kind,
            "kind": registered,
            "kind_words": registered.replace("_", " ").replace("quant ", "quantization "),
            "base": BASES[registered].__name__,
            "core": version("decodekit-core"),
            "test_requirements": ', "decodekit-strategies"' if self.kind == "drafter" else "",
        }

    def fill(self, text: str) -> str:
        """The text with every placeholder filled in."""
        return re.sub(r"@@(\w+)@@", lambda match: self.values[match[1]], text)


def plugin_files(kind: str, name: str) -> Iterator[tuple[str, str]]:
    """The files of a new package: (path inside it, text).

    Raises:
        ParameterError: there is no such kind, or the name can't be one.
    """
    if kind not in NEW_KINDS:
        known = ", ".join(NEW_KINDS)
        message = f"kind={kind!r} is not allowed: it must be one of {known}.{nearest(kind, NEW_KINDS)}"
        raise ParameterError(message)
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        message = (
            f"name={name!r} is not allowed: it must be made of lower-case words and digits, with '_' "
            "(or '-') between them, e.g. soft_cap"
        )
        raise ParameterError(message)
    names = _Names(kind, name)
    templates = resources.files("decodekit") / "templates"
    for target, source in _TARGETS.items():
        file = templates / f"{source.format(kind=kind.replace('-', '_'))}.tmpl"
        yield names.fill(target), names.fill(file.read_text(encoding="utf-8"))
    yield names.fill("@@package@@/py.typed"), ""


def new_plugin(kind: str, name: str, into: Path) -> Path:
    """Write a new plugin package; returns its folder, which is new.

    Args:
        kind: ``processor``, ``strategy``, ``quant-backend`` or another of `NEW_KINDS`.
        name: what the registry will call it, e.g. ``soft_cap``.
        into: the folder in which the package's folder is made.

    Raises:
        ParameterError: there is no such kind, the name can't be one or is taken, or the folder is there.
    """
    files = dict(plugin_files(kind, name))
    if taken := registry().entries(NEW_KINDS[kind]).get(name):
        message = f"name={name!r} is taken by {taken[0]}: choose another, two of one name are an error"
        raise ParameterError(message)
    folder = into / _Names(kind, name).values["distribution"]
    if folder.exists():
        message = f"{folder} is there already: choose another name, or another folder with --into"
        raise ParameterError(message)
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        message = f"{folder} can't be written ({error}): choose another folder with --into"
        raise ParameterError(message) from error
    return folder

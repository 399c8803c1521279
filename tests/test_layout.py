"""The house rules that a program can check; each rule is shown to fail on a planted violation."""

import ast
import contextlib
import functools
import os
import re
import sys
import textwrap
from pathlib import Path

import decodekit
import pytest
from transformers import GenerationMixin

ROOT = Path(__file__).parents[1]
PLUGINS = {"decodekit_strategies", "decodekit_processors", "decodekit_quant_backends"}
PACKAGES = ("core/decodekit", *(f"{name.removeprefix('decodekit_')}/{name}" for name in sorted(PLUGINS)))
PLUGGY = {"core/decodekit/hookspecs.py", "core/decodekit/registry.py"}
HOOKS = "core/decodekit/transformers_hooks.py"
PRIVATE = {name for name in vars(GenerationMixin) if re.match(r"_[a-z]", name)}
SKIPPED = re.compile(r"\.(?!ci$).*|__pycache__|build|dist|.*\.egg-info")
# What every installation has. Anything else is optional and imported by the function that needs it.
EVERYWHERE = {"attrs", "torch", "numpy", "transformers", "tokenizers", "huggingface_hub", "safetensors"}
IN_CORE = {"pluggy", "typer", "click", "rich", "packaging", "platformdirs", "filelock"}
IN_KIT = {"hypothesis", "pytest"}


@functools.cache
def files(root):
    """Every text file that belongs to the project: (path from the root, text)."""
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not SKIPPED.fullmatch(name)]
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(UnicodeDecodeError):
                found.append((path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")))
    return sorted(found)


def python(root, within=("",)):
    """The syntax trees of the files below one of the folders."""
    for name, text in files(root):
        if name.endswith(".py") and name.startswith(tuple(within)):
            yield name, ast.parse(text)


def packages(root):
    return python(root, PACKAGES)


def imports(nodes):
    """What is imported from elsewhere: (line, module, names)."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module, [alias.name for alias in node.names]


def at_import(body):
    """The statements that run when a module is imported; type checkers' imports don't."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            inner = [*node.body, *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]
            inner += [statement for handler in getattr(node, "handlers", []) for statement in handler.body]
            yield from at_import(inner)


def is_public(module, names):
    return module == "decodekit.testing" or (
        module == "decodekit" and names and {*names} <= {*decodekit.__all__, "testing"}
    )


def the_core_imports_no_plugin(root):
    spelled = re.compile(rf"({'|'.join(PLUGINS)})(\.\w+)*")
    for name, tree in python(root, PACKAGES[:1]):
        for line, module, _ in imports(ast.walk(tree)):
            if module.partition(".")[0] in PLUGINS:
                yield f"{name}:{line}: {module}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and spelled.fullmatch(str(node.value)):
                yield f"{name}:{node.lineno}: {node.value}"


def plugins_import_only_public_names(root):
    for name, tree in python(root, PACKAGES[1:]):
        for line, module, names in imports(ast.walk(tree)):
            top, own = module.partition(".")[0], name.split("/")[1]
            if (top in PLUGINS and top != own) or (top == "decodekit" and not is_public(module, names)):
                yield f"{name}:{line}: {module} {names}"


def few_import_pluggy(root):
    for name, tree in packages(root):
        for line, module, _ in imports(ast.walk(tree)):
            if module.partition(".")[0] == "pluggy" and name not in PLUGGY:
                yield f"{name}:{line}: pluggy"


def one_module_touches_private_generation(root):
    for name, tree in packages(root):
        for node in ast.walk(tree) if name != HOOKS else ():
            private = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)
            own = isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls")
            if isinstance(private, str) and private in PRIVATE and not own:
                yield f"{name}:{node.lineno}: {private}"


def optional_libraries_are_imported_late(root):
    for name, tree in packages(root):
        known = {"__future__", "decodekit", *PLUGINS, *EVERYWHERE}
        known |= IN_CORE if name.startswith(PACKAGES[0]) else set()
        known |= IN_KIT if name.startswith((PACKAGES[0] + "/testing/", PACKAGES[0] + "_pytest/")) else set()
        for line, module, _ in imports(at_import(tree.body)):
            if module.partition(".")[0] not in known | sys.stdlib_module_names:
                yield f"{name}:{line}: {module}"


def everything_public_has_a_docstring(root):
    for name, tree in packages(root):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
        for node in (tree, *public):
            if not ast.get_docstring(node) and not (node is tree and not tree.body):
                yield f"{name}: {getattr(node, 'name', 'module')}"


def files_and_functions_are_short(root):
    for name, text in files(root):
        if name.endswith(".py") and text.count("\n") > 400:
            yield f"{name}: {text.count(chr(10))} lines"
    for name, tree in python(root):
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                start = node.body[0].end_lineno if ast.get_docstring(node) else node.body[0].lineno - 1
                if node.end_lineno - start > 70:
                    yield f"{name}:{node.lineno}: {node.name}"


def nothing_is_left_unwritten(root):
    for name, tree in python(root):
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == "NotImplementedError":
                yield f"{name}:{node.lineno}: {node.id}"


def no_path_of_a_machine(root):
    for name, text in files(root):
        for match in re.finditer(r"(?<![\w.~$}-])/(work|home|Users)/\w+", text):
            yield f"{name}: {match.group()}"


def in_core(source):
    return {"core/decodekit/planted.py": source}


def in_plugin(source):
    return {"processors/decodekit_processors/planted.py": source}


# rule -> the trees of files that it must object to
PLANTED = {
    the_core_imports_no_plugin: [
        in_core("def f():\n    from decodekit_processors.top_k import TopK"),
        in_core("import importlib\nimportlib.import_module('decodekit_strategies.greedy')"),
    ],
    plugins_import_only_public_names: [
        in_plugin("from decodekit.session import Session"),
        in_plugin("from decodekit import no_such_public_name"),
        in_plugin("import decodekit.registry"),
        in_plugin("import decodekit_strategies"),
    ],
    few_import_pluggy: [
        in_core("import pluggy"),
        in_plugin("def f():\n    from pluggy import HookimplMarker"),
    ],
    one_module_touches_private_generation: [
        in_core("def f(model):\n    return model._prepare_generation_config(None)"),
        in_core("def f(model):\n    return getattr(model, '_get_logits_processor')"),
    ],
    optional_libraries_are_imported_late: [
        in_core("import bitsandbytes.functional"),
        in_plugin("try:\n    import xgrammar\nexcept ImportError:\n    import torchao"),
        in_plugin("import pluggy"),
        in_core("from hypothesis import given"),
    ],
    everything_public_has_a_docstring: [
        in_core("x = 1"),
        in_core('"""Module."""\ndef f(): ...'),
        in_plugin('"""Module."""\nclass A: ...'),
    ],
    files_and_functions_are_short: [
        {"tests/planted.py": "x = 1\n" * 401},
        {"tests/planted.py": "def f():\n" + "    x = 1\n" * 71},
    ],
    nothing_is_left_unwritten: [{"docs/planted.py": "raise NotImplementedError"}],
    no_path_of_a_machine: [{"README.md": "see /" + "home/me"}, {".ci/run": "cd /" + "work/main"}],
}
HARMLESS = {
    "core/decodekit/harmless.py": """
        '''A module that keeps every rule.'''
        from typing import TYPE_CHECKING
        from decodekit.errors import ParameterError
        if TYPE_CHECKING:
            import bitsandbytes
        def f(self, model):
            '''Uses its own _sample.'''
            import bitsandbytes
            return self._sample(model, "decodekit-processors", "https://example.org/home/page")
        """,
    "processors/decodekit_processors/harmless.py": """
        '''A plugin that keeps every rule.'''
        import torch
        from decodekit import Processor, param
        from decodekit.testing import check_processor
        from decodekit_processors._shared import sort
        """,
    "tests/harmless.py": "def f():\n" + "    x = 1\n" * 70,
    ".venv/lib/site.py": "import pluggy\nraise NotImplementedError",
}


def plant(root, tree):
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return root


@pytest.mark.parametrize("rule", PLANTED, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule):
    assert list(rule(ROOT)) == []


@pytest.mark.parametrize("rule", PLANTED, ids=lambda rule: rule.__name__)
def test_the_rule_finds_what_is_planted_and_nothing_else(rule, tmp_path):
    for number, tree in enumerate(PLANTED[rule]):
        found = list(rule(plant(tmp_path / str(number), {**HARMLESS, **tree})))
        assert found
        assert all(violation.startswith(tuple(tree)) for violation in found)


def test_the_rules_read_every_package():
    assert {name.rpartition("/")[0] for name, _ in packages(ROOT)} >= {*PACKAGES}

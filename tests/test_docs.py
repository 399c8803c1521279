"""The docs are true: every Python block and every command runs, every link leads somewhere."""

import importlib.util
import re
import shlex
import sys
import tomllib
import types
from pathlib import Path

import decodekit
import pytest
import torch
from decodekit.cli import app
from decodekit.load import load
from decodekit.registry import Registry, registry
from decodekit.testing.models import tiny_llama
from transformers import CompileConfig, DynamicCache
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("[A-Z]*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"save this as `([\w.]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", re.M | re.S | re.I)
"""A block that a reader saves under a name, as the sentence before it says."""


def blocks(page, *languages):
    """The blocks of these languages, without those that are files."""
    return [text for language, text in BLOCK.findall(FILE.sub("", page.read_text())) if language in languages]


def save_files(folder):
    """Write what the pages tell a reader to save."""
    for page in PAGES:
        for name, text in FILE.findall(page.read_text()):
            (folder / name).write_text(text)


def commands(page):
    """The commands in a page: the lines of its shell blocks, and what stands in backticks."""
    lines = "".join(blocks(page, "sh")).splitlines()
    inline = re.findall(r"`([^`\n]+)`", BLOCK.sub("", page.read_text()))
    return [words for line in [*lines, *inline] if (words := shlex.split(line, comments=True))]


def having(*programs):
    return [
        pytest.param(words, id=f"{page.name}: {shlex.join(words)}")
        for page in PAGES
        for words in commands(page)
        if words[0] in programs and len(words) > 1
    ]


def cell(code, name, monkeypatch):
    """Run a block of Python as a module of its own; returns the module."""
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(code, name, "exec"), vars(module))
    return module


@pytest.fixture
def small(monkeypatch, tmp_path, tiny_folder, interpreted):
    """A tiny model in place of the default one, an empty folder, cache and registry, and no compiler."""

    def stand_in(name=None, **options):
        return load(name or tiny_folder, **options)

    monkeypatch.setattr(decodekit, "load", stand_in)
    monkeypatch.setattr(sys.modules["decodekit.cli.generate"], "load", stand_in)
    monkeypatch.setattr(sys.modules["decodekit.cli.batch"], "load", stand_in)
    monkeypatch.setattr(sys.modules["decodekit.figures"], "load", stand_in)
    quant = sys.modules["decodekit.cli.quant"]
    monkeypatch.setattr(quant, "_in_a_process", quant._measure)
    monkeypatch.setattr(registry(), "_local", {})
    monkeypatch.setenv("DECODEKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DECODEKIT_TEST_PROFILE", "fast")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    save_files(tmp_path)
    yield
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def with_python(pages):
    return [pytest.param(page, id=page.name) for page in pages if blocks(page, "python")]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("page", with_python(PAGES))
def test_the_python_of_a_page_runs_from_top_to_bottom(page, monkeypatch):
    cell("\n".join(blocks(page, "python")), f"page_{page.stem}", monkeypatch)


PLUGIN = ROOT / "docs" / "processors.md"


def exit_code(words):
    return CliRunner().invoke(app, words[1:], input="hello").exit_code


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("words", having("decodekit"))
def test_a_command_runs(words, monkeypatch):
    decodekit.register(cell(blocks(PLUGIN, "python")[-1], "decodekit_soft_cap", monkeypatch).SoftCap)
    assert exit_code(words) == 0


def test_files_that_commands_name_are_saved_before(tmp_path):
    save_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "my_rank.py",
        "person.json",
        "prompt.txt",
        "prompts.jsonl",
    }


@pytest.mark.parametrize(
    "words", ["decodekit no-such", "decodekit plugins --no-such", "decodekit generate x --quant no"]
)
def test_a_wrong_command_would_be_found(words):
    assert exit_code(words.split()) != 0


@pytest.mark.parametrize("words", having("make"))
def test_a_target_of_make_exists(words):
    assert re.search(rf"^{words[1]}:.*## ", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("words", [param for param in having("pip") if "-c" in param.values[0]])
def test_make_installs_as_the_docs_say(words):
    assert " ".join(words) in (ROOT / "Makefile").read_text().replace('"', "")


def test_the_files_of_the_plugin_page_are_an_installable_plugin(tmp_path, monkeypatch):
    project = tomllib.loads(blocks(PLUGIN, "toml")[0])["project"]
    [(name, module)] = project["entry-points"]["decodekit"].items()
    info = tmp_path / "planted-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[decodekit]\n{name} = {module}\n")
    (tmp_path / f"{module}.py").write_text(blocks(PLUGIN, "python")[-1])
    monkeypatch.syspath_prepend(tmp_path)
    assert Registry().entry("processors", "soft_cap").distribution == project["name"]
    sys.modules.pop(module)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_decodekit_exists(page):
    names = re.findall(r"\b(?:dk|decodekit)\.([A-Za-z]\w*)", page.read_text())
    assert [name for name in names if not hasattr(decodekit, name)] == []


def refused():
    table = (
        (ROOT / "docs" / "generating.md").read_text().partition("<!-- refused")[2].partition("<!-- end")[0]
    )
    return re.findall(r"^\| `(.+?)` \|", table, re.M)


@pytest.mark.parametrize("arguments", refused())
def test_what_the_docs_call_refused_is_refused_by_its_name(arguments):
    model, ids = tiny_llama(), torch.tensor([[5, 6, 7]])
    names = {"model": model, "tokenizer": object(), "ids": ids, "embeddings": torch.zeros(1, 3, 32)}
    names |= {"CompileConfig": CompileConfig, "DynamicCache": DynamicCache}
    keywords = eval(f"dict({arguments})", names)
    with pytest.raises(decodekit.UnsupportedArgumentError, match="|".join(keywords)):
        decodekit.generate(model, ids, max_new_tokens=2, **keywords)


def test_what_the_docs_say_differs_does_so():
    model, ids = tiny_llama(eos_token_id=None), torch.tensor([[5, 6, 7], [8, 9, 10]])
    shown, scores = [], []

    def show(tokens, logits):
        shown.append((tokens, logits))
        return logits

    def first_row_is_long(tokens, given):
        scores.append(given)
        return torch.tensor([tokens.shape[1] >= 5, False])

    arguments = {"max_new_tokens": 4, "logits_processor": [show], "stopping_criteria": [first_row_is_long]}
    arguments |= {"pad_token_id": 0, "return_dict_in_generate": True, "output_scores": True}
    theirs, ours = model.generate(ids, **arguments), decodekit.generate(model, ids, **arguments)
    beams = decodekit.generate(model, ids, num_beams=2, max_new_tokens=2, return_dict_in_generate=True)
    assert (ours.past_key_values is not None, beams.past_key_values) == (True, None)
    assert theirs.sequences[0, -2:].any()
    assert not ours.sequences[0, -2:].any()
    assert ours.scores[-1][0].softmax(-1).tolist() == [1.0] + [0.0] * 31
    assert [logits[0].any().item() for _, logits in shown] == [True] * 4 + [True, True, False, False]
    assert not shown[-1][0][0].any()
    assert [given is None for given in scores] == [False] * 4 + [True] * 4


def test_a_mask_is_asked_for_and_no_new_tokens_are_fine():
    model, ids = tiny_llama(), torch.tensor([[0, 5, 6]])
    model.generate(ids, max_new_tokens=1)
    with pytest.raises(decodekit.ParameterError, match="attention_mask is missing"):
        decodekit.generate(model, ids, max_new_tokens=1)
    with pytest.raises(ValueError, match="max_new_tokens"):
        model.generate(ids[:, 1:], max_new_tokens=0)
    assert torch.equal(decodekit.generate(model, ids[:, 1:], max_new_tokens=0), ids[:, 1:])


def slugs(page):
    """The anchors that the headings of a page give it."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not link.startswith("https://") and (
            not target.exists() or (anchor and anchor not in slugs(target))
        ):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    assert list(broken_links(page)) == []


def test_a_broken_link_would_be_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One, two\n[a](page.md#one-two) [b](#one-two) [c](no.md) [d](#three) [e](page.md#three)\n"
    )
    assert list(broken_links(page)) == ["no.md", "#three", "page.md#three"]


@pytest.fixture(scope="module")
def writer():
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_up_to_date(writer):
    assert list(writer.stale(ROOT)) == []


def test_a_stale_page_would_be_found(writer, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n{writer.readme_table()}\nmore\n")
    pages = writer.pages(tmp_path)
    assert set(writer.stale(tmp_path)) == pages.keys() - {readme}
    assert {path.name for path in pages} >= {"catalogue.md", "conformance.md", "pyproject.toml"}
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert list(writer.stale(tmp_path)) == []
    readme.write_text(readme.read_text().replace("[`greedy`]", "[`greed`]"))
    assert writer.stale(tmp_path) == {readme: f"# Title\n{writer.readme_table()}\nmore\n"}


def test_a_readme_without_a_place_for_the_table_is_named(writer, tmp_path):
    (tmp_path / "README.md").write_text("# Title\n")
    with pytest.raises(SystemExit, match="lacks the lines"):
        writer.stale(tmp_path)

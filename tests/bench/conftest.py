"""What the tests of the benchmark share: a tiny model in place of the default one."""

import decodekit as dk
import pytest

from tests.bench import batches, calls, formats, histories, models, peers
from tests.bench.rows import Result


@pytest.fixture
def tiny(monkeypatch, tiny_folder):
    """Let all rows run on a tiny model; gives the model and its tokenizer."""
    found = {}

    def loaded(dtype="float32", quant="none"):
        key = dtype, quant
        found[key] = found.get(key) or dk.load(tiny_folder, dtype=dtype, quant=quant)
        return found[key]

    for module in (batches, calls, formats, histories, models, peers):
        monkeypatch.setattr(module, "loaded", loaded)
    batches.Answers.drawn.cache_clear()
    yield loaded()
    batches.Answers.drawn.cache_clear()


@pytest.fixture
def result():
    """Makes results: of a row's name, a ratio and a target."""

    def make(name, ratio, target=None, verdict=""):
        return Result(name, "base", 3, 2.0, 1.0, ratio, (ratio, ratio), 10.0, 20.0, 5.0, target, verdict)

    return make

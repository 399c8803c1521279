import importlib.util

import pytest

from tests.bench.formats import format_rows
from tests.bench.rows import Missing


@pytest.mark.parametrize("library", ["bitsandbytes", "torchao"])
def test_a_library_that_is_not_installed_is_named(library, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    name = {"bitsandbytes": "eager, bnb-nf4, batch 1", "torchao": "eager, torchao-int8, batch 1"}[library]
    with pytest.raises(Missing, match=f"{library} is not installed: pip install"):
        format_rows()[name].theirs()


@pytest.mark.usefixtures("tiny")
def test_both_sides_of_a_row_give_its_tokens():
    row = format_rows()["eager, float32, batch 1"]
    before = row.ours().shape[1] - row.tokens
    assert row.theirs().shape[1] == row.tokens + before
    assert row.reads() > 0


def test_rows_of_several_sequences_say_nothing_of_bytes():
    rows = format_rows()
    assert rows["compiled, bfloat16, batch 1"].reads is not None
    assert rows["compiled, bfloat16, batch 8"].reads is None
    assert rows["compiled, bfloat16, beam 4"].reads is None

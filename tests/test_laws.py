"""docs/laws.md says what the kit finds."""

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("laws", ROOT / "docs" / "laws.py")
laws = importlib.util.module_from_spec(spec)
spec.loader.exec_module(laws)
TABLE = {
    cells[1].split("`")[1]: [cell.strip() for cell in cells[2:-1]]
    for line in (ROOT / "docs" / "laws.md").read_text().splitlines()
    if line.startswith("| [`") and (cells := line.split("|"))
}
THOROUGH = os.environ.get("DECODEKIT_TEST_PROFILE") == "thorough"
CLASSES = {cls.NAME: cls for cls in laws.ours()}


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_declared_stands_there_as_kept_and_nothing_else(name):
    declared = [bool(getattr(CLASSES[name].LAWS, check.law)) for check in laws.SEARCHED]
    assert [cell == "yes" for cell in TABLE[name]] == declared
    assert {*TABLE[name]} <= {"yes", "no", "open"}


def test_what_has_gone_does_not_stand_there():
    assert TABLE.keys() == CLASSES.keys()


@pytest.mark.parametrize("name", CLASSES if THOROUGH else ["top_p", "temperature"])
def test_the_kit_finds_what_stands_there(name):
    assert laws.found(CLASSES[name]) == TABLE[name]


def test_the_table_of_orders_agrees_with_what_is_declared_and_known():
    lines = (ROOT / "docs" / "laws.md").read_text().partition("## Does their order")[2].splitlines()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    assert [row[0] for row in rows] == laws.ORDERED
    table = {(row[0], other): cell for row in rows for other, cell in zip(laws.ORDERED, row[1:], strict=True)}
    for (one, other), cell in table.items():
        assert cell == table[other, one]
        if other in CLASSES[one].LAWS.commutes_with:
            assert cell == "no"
    assert table["top_k", "top_p"] == table["top_p", "min_p"] == table["temperature", "top_p"] == "yes"


def test_the_laws_that_the_literature_tells_are_found():
    """What is known of these methods: no table that a mistake of the kit could write."""
    known = {
        "top_k": {"idempotent": "yes", "commutes_with_temperature": "yes", "keeps_argmax": "yes"},
        "min_p": {"idempotent": "yes", "commutes_with_temperature": "no"},
        "top_p": {"idempotent": "no", "commutes_with_temperature": "no", "upper_set": "yes"},
        "typical_p": {"keeps_argmax": "no", "upper_set": "no", "keeps_ratios": "yes"},
        "top_n_sigma": {"commutes_with_temperature": "yes", "idempotent": "no"},
        "repetition_penalty": {"shift_invariant": "no"},
        "temperature": {"keeps_ratios": "no", "keeps_order": "yes"},
        "xtc": {"keeps_order": "no"},
    }
    columns = [check.law for check in laws.SEARCHED]
    for name, cells in known.items():
        row = dict(zip(columns, TABLE[name], strict=True))
        assert {law: row[law] for law in cells} == cells, name

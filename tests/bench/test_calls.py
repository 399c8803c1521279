import pytest

from tests.bench.calls import call_rows

QUICK = [name for name in call_rows() if "1,200" not in name and "against" not in name]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", QUICK)
def test_both_sides_give_as_many_tokens(name):
    row = call_rows()[name]
    assert row.theirs().shape == row.ours().shape

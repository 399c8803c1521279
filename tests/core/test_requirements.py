import attrs
import pytest
from decodekit.requirements import missing_requirements


@pytest.mark.parametrize(
    "line",
    [
        "attrs",
        f"attrs=={attrs.__version__}",
        "attrs>=1,<1000  # of course",
        "# a comment",
        "",
        "--pre",
        'no-such-lib; python_version < "3"',
    ],
)
def test_what_is_there_is_not_missing(line):
    assert missing_requirements([line]) == []


@pytest.mark.parametrize("line", ["no-such-lib", "attrs<1", "attrs===0", "what ? is this"])
def test_what_is_not_there_is_missing(line):
    assert missing_requirements(["attrs", line, "# end"]) == [line]

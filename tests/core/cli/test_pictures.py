"""The file of --plot is looked at before minutes of measuring."""

import sys
from pathlib import Path

import pytest
from decodekit import MissingLibraryError, ParameterError
from decodekit.cli.arguments import check_picture


@pytest.mark.parametrize("name", ["speed.svg", "speed.png", "speed.PNG"])
def test_a_file_that_can_be_written_is_fine(name, tmp_path):
    check_picture(tmp_path / name)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("speed.txt", r"must end with one of \.png, \.svg, \.pdf"),
        ("none/speed.svg", "no folder .*none"),
    ],
)
def test_what_can_not_be_written_is_said(path, message):
    with pytest.raises(ParameterError, match=message):
        check_picture(Path(path))


def test_a_missing_library_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingLibraryError, match="pip install"):
        check_picture(Path("speed.svg"))

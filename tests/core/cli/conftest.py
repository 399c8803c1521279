"""The command line, run in this process."""

import pytest
from decodekit.cli import app
from typer.testing import CliRunner


@pytest.fixture
def run(monkeypatch):
    """Run the command line in this process, in a wide terminal."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("DECODEKIT_DEBUG", raising=False)
    return lambda *arguments, **keywords: CliRunner().invoke(
        app, [str(text) for text in arguments], **keywords
    )


@pytest.fixture
def generate(run, tiny_folder):
    """Run ``generate`` with the tiny model."""
    return lambda *arguments, **keywords: run("generate", "--model", tiny_folder, *arguments, **keywords)


@pytest.fixture
def refused():
    """Checks that a command was refused, and returns the one line that it says on stderr."""

    def line_of(result):
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        return line

    return line_of

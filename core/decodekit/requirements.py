"""Requirements in pip's notation against what is installed, without importing anything."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import InvalidRequirement, Requirement

__all__ = ["missing_requirements"]


def missing_requirements(lines: Iterable[str]) -> list[str]:
    """Those of the requirements that nothing installed fulfils, as they stand in ``lines``.

    Comments, options of pip (``--extra-index-url``) and requirements for other platforms are passed over;
    a line that can't be read counts as missing.
    """
    plain = (line.partition(" #")[0].strip() for line in lines)
    return [line for line in plain if line and line[0] not in "#-" and not _is_fulfilled(line)]


def _is_fulfilled(line: str) -> bool:
    try:
        wanted = Requirement(line)
    except InvalidRequirement:
        return False
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return True
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:
        return False

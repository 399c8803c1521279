"""The allow-list: when the file is there, only code that stands in it with its hash may be loaded.

Without the file every installed plugin is known by name, and none does anything until it is named in a
call. The hash covers the files of the distribution and of the modules that its entry points name.
"""

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

from decodekit.errors import TrustError
from decodekit.settings import config_folder, normal_name, read_json, write_json

__all__ = [
    "allow_folder",
    "allow_list_file",
    "allow_plugin",
    "check_folder",
    "check_plugin",
    "hash_of_folder",
    "hash_of_plugin",
]

_CHANGED_BY_PIP = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
_ALLOW = "decodekit plugins allow"


def allow_list_file() -> Path:
    """Where the allow-list is, or would be: ``DECODEKIT_ALLOW_LIST``, or a file in the settings folder."""
    given = os.environ.get("DECODEKIT_ALLOW_LIST")
    return Path(given).expanduser() if given else config_folder() / "allowed.json"


def check_plugin(point: EntryPoint) -> None:
    """Refuse the plugin of an entry point that is not on the allow-list; nothing of it is imported.

    Raises:
        TrustError: there is a list, and the distribution is not on it with this version and these files.
        DamagedCacheError: the list can't be read.
    """
    file = allow_list_file()
    if not file.exists():
        return
    entries = read_json(file).get("plugins", {})
    if point.dist is None:
        message = f"no distribution is known for the entry point {point.name}, and {file} lists distributions"
        raise TrustError(message)
    name, version = point.dist.name, point.dist.version
    entry = entries.get(normal_name(name))
    remedy = f"read its code, then run `{_ALLOW} {name}`"
    if entry is None:
        message = f"it is not on the allow-list {file}: {remedy}"
        raise TrustError(message)
    if entry.get("version") != version:
        message = (
            f"the allow-list {file} has version {entry.get('version')}, installed is {version}: {remedy}"
        )
        raise TrustError(message)
    if entry.get("sha256") != hash_of_plugin(point.dist):
        message = f"its files are not those that the allow-list {file} has a hash of: {remedy}"
        raise TrustError(message)


def check_folder(name: str, folder: Path | None) -> None:
    """Refuse a ``custom_generate`` folder, or a hub id (``folder=None``), that is not on the allow-list.

    Raises:
        TrustError: there is a list, and the name is not on it, or the folder's files have other contents.
        DamagedCacheError: the list can't be read.
    """
    file = allow_list_file()
    if not file.exists():
        return
    key = name if folder is None else str(folder.parent.resolve())
    entry = read_json(file).get("custom_generate", {}).get(key)
    remedy = f"read its code, then run `{_ALLOW} --folder {name}`"
    if entry is None:
        rest = remedy if folder is not None else "download it, read it, and allow the folder"
        message = f"custom_generate={name!r} is not on the allow-list {file}: {rest}"
        raise TrustError(message)
    if folder is not None and entry.get("sha256") != hash_of_folder(folder):
        message = f"the files of custom_generate={name!r} have changed since they were allowed: {remedy}"
        raise TrustError(message)


def allow_plugin(dist: Distribution) -> None:
    """Put a distribution on the allow-list, as it is now; the first one makes the list."""
    entry = {"version": dist.version, "sha256": hash_of_plugin(dist)}
    _add("plugins", normal_name(dist.name), entry)


def allow_folder(folder: Path) -> None:
    """Put a folder with ``custom_generate/`` on the allow-list, as it is now."""
    _add(
        "custom_generate",
        str(folder.resolve()),
        {"sha256": hash_of_folder(folder.resolve() / "custom_generate")},
    )


def hash_of_plugin(dist: Distribution) -> str:
    """The SHA-256 of a distribution's files and of the modules that its entry points name."""
    files = {}
    for item in dist.files or ():
        files[Path(str(dist.locate_file(item))).resolve()] = item.as_posix()
    for point in dist.entry_points:
        if point.group == "decodekit":
            for path, name in _files_of_module(point.module.partition(".")[0]):
                files.setdefault(path, name)
    return _hash(files)


def hash_of_folder(folder: Path) -> str:
    """The SHA-256 of a folder's files."""
    return _hash({path: path.relative_to(folder).as_posix() for path in folder.rglob("*")})


def _add(section: str, key: str, entry: dict[str, Any]) -> None:
    file = allow_list_file()
    content = read_json(file)
    content.setdefault(section, {})[key] = entry
    write_json(file, content)


def _files_of_module(name: str) -> Iterator[tuple[Path, str]]:
    """The files of a top-level module, which is found and not imported, with their names from its parent."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    for place in spec.submodule_search_locations or ():
        folder = Path(place)
        for path in folder.rglob("*"):
            yield path.resolve(), path.relative_to(folder.parent).as_posix()
    if spec.origin is not None and Path(spec.origin).is_file():
        origin = Path(spec.origin)
        yield origin.resolve(), f"{name}/{origin.name}" if spec.submodule_search_locations else origin.name


def _hash(files: Mapping[Path, str]) -> str:
    """One hash over names from the root and contents.

    The cache of bytecode and what pip writes about the installation stay out. Bytecode elsewhere does not:
    Python imports it where there is no source.
    """
    parts = sorted(
        f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path, name in files.items()
        if path.is_file() and not _is_left_out(path)
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _is_left_out(path: Path) -> bool:
    is_cache = path.suffix == ".pyc" and path.parent.name == "__pycache__"
    return is_cache or path.name in _CHANGED_BY_PIP

"""What a user has decided about plugins for good: which are kept out, and where that is written down."""

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from decodekit.errors import DamagedCacheError

__all__ = ["config_folder", "disabled_plugins", "normal_name", "read_json", "set_disabled", "write_json"]

_FILE = "plugins.json"


def config_folder() -> Path:
    """The folder of decodekit's settings: ``DECODEKIT_CONFIG_DIR``, or the user's configuration folder."""
    return Path(
        os.environ.get("DECODEKIT_CONFIG_DIR") or platformdirs.user_config_dir("decodekit")
    ).expanduser()


def disabled_plugins() -> list[str]:
    """What `set_disabled` keeps out: distributions, or ``distribution:entry-point``; normalised, sorted.

    Raises:
        DamagedCacheError: the file can't be read.
    """
    found = read_json(config_folder() / _FILE).get("disabled", [])
    return sorted(map(str, found))


def set_disabled(names: Iterable[str], disabled: bool) -> None:
    """Keep plugins out from now on, in every process of this user, or let them in again."""
    changed = {normal_name(name) for name in names}
    before = set(disabled_plugins())
    write_json(
        config_folder() / _FILE, {"disabled": sorted(before | changed if disabled else before - changed)}
    )


def normal_name(name: str) -> str:
    """A distribution's name in the one spelling that packaging tools compare."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of settings; an absent file is an empty one.

    Raises:
        DamagedCacheError: it can't be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        message = f"{path} can't be read: {error}; mend it, or delete it to start anew"
        raise DamagedCacheError(message) from error
    if not isinstance(found, dict):
        message = f"{path} must hold one JSON object; mend it, or delete it to start anew"
        raise DamagedCacheError(message)
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of settings, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        json.dump(content, file, indent=2, sort_keys=True)
    os.replace(file.name, path)

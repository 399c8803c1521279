"""Where a model is: a folder, a GGUF file, or a repository of the hub, found without waiting for retries."""

import os
from pathlib import Path

from decodekit.errors import ModelNotFoundError

__all__ = ["gguf_path", "local_folder", "only_local"]

_PATIENCE = 10.0  # seconds for one answer of the hub


def local_folder(name_or_path: str | os.PathLike[str]) -> str:
    """The folder, or the hub id, once it is clear that it can be one.

    Raises:
        ModelNotFoundError: it can't; the message says what would.
    """
    name = os.fspath(name_or_path)
    path = Path(name).expanduser()
    if name and (path / "config.json").is_file():
        return str(path)
    if name and path.is_dir():
        files = sorted(file.name for file in path.glob("*.gguf"))
        hint = f"give {path / files[0]}" if files else "give a folder that save_pretrained() wrote"
        message = f"the folder {name} has no config.json: {hint}"
        raise ModelNotFoundError(message)
    if _is_path(name, 1):
        message = f"there is no folder {name!r}: give one from save_pretrained(), or a hub id like org/name"
        raise ModelNotFoundError(message)
    return name


def gguf_path(name_or_path: str | os.PathLike[str], revision: str | None) -> Path:
    """The GGUF file of a path, or of a hub file name ``org/name/file.gguf``, which is downloaded once.

    Raises:
        ModelNotFoundError: there is no such file here or there.
    """
    name = os.fspath(name_or_path)
    path = Path(name).expanduser()
    if path.is_file():
        return path
    parts = name.split("/")
    if path.exists() or _is_path(name, len(parts)) or len(parts) < 3:
        message = (
            f"there is no GGUF file {name!r}: give the path of one, or a hub file name like "
            "org/name/file.gguf"
        )
        raise ModelNotFoundError(message)
    from huggingface_hub import hf_hub_download

    repository, file = "/".join(parts[:2]), "/".join(parts[2:])
    local = only_local(repository, file, revision)
    return Path(hf_hub_download(repository, file, revision=revision, local_files_only=local))


def only_local(repository: str, file: str, revision: str | None) -> bool:
    """Whether a repository has to come from the local cache, since the hub does not answer.

    transformers would ask six times, with pauses of half a minute; this asks once.

    Raises:
        ModelNotFoundError: it is neither there nor in the cache, with the next step.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    here = False
    try:
        here = isinstance(try_to_load_from_cache(repository, file, revision=revision), str)
        if not constants.HF_HUB_OFFLINE:
            get_hf_file_metadata(hf_hub_url(repository, file, revision=revision), timeout=_PATIENCE)
            return False
        reason: Exception | str = "HF_HUB_OFFLINE is set, so that the hub is not asked"
    except Exception as error:  # of the hub's client, or of the HTTP library below it
        reason = error
    if here:
        return True
    message = (
        f"{repository!r} is neither a folder here nor in the hub's local cache, and its {file} could not be "
        "fetched. Check the spelling and the connection; a private model needs `hf auth login`. "
        f"The reason given: {' '.join(str(reason).split())}"
    )
    raise ModelNotFoundError(message) from (reason if isinstance(reason, Exception) else None)


def _is_path(name: str, slashes: int) -> bool:
    """Whether a name can only be meant as a path of this machine."""
    path = Path(name).expanduser()
    return (
        not name
        or path.exists()
        or path.is_absolute()
        or name.startswith((".", "~"))
        or name.count("/") > slashes
    )

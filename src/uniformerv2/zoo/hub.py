"""Files of the Hugging Face hub: from its own cache without asking it, else fetched; without a network told at once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from uniformerv2.core.limits import get_limits
from uniformerv2.core.terminal import without_credentials
from uniformerv2.zoo.download import CONVERT_A_COPY, DownloadError, is_offline

# huggingface_hub is imported where it is used: it takes longer to import than all of this package's own files.

__all__ = ["cached_from_hub", "fetch_folder_from_hub", "fetch_from_hub"]

SHA256: Final = re.compile(r"[0-9a-f]{64}")

ANSWER_SECONDS: Final = 5.0
"""The hub answers the first question within this time, or there is no network."""


def fetch_from_hub(
    repository: str,
    filename: str | Sequence[str],
    *,
    cache_dir: Path | str | None = None,
    instead: str = CONVERT_A_COPY,
) -> Path:
    """A file of a Hugging Face repository, from the hub's own cache or downloaded into it.

    A file in the cache is taken without asking the hub. Without a network this fails at once: the hub's own patience,
    half a minute a file, is for a server that answers.

    Args:
        repository: Such as ``"Andy1621/uniformerv2"``.
        filename: Path inside the repository; of several, the first that is there.
        cache_dir: Folder instead of the hub's own cache (``HF_HOME``).
        instead: What the user can do when the file can't be had; ends the message of the error.

    Raises:
        DownloadError: The file could not be had.
    """
    from huggingface_hub import errors

    names = (filename,) if isinstance(filename, str) else tuple(filename)
    if cached := cached_from_hub(repository, names, cache_dir=cache_dir):
        return cached
    where = f"{repository}/{names[0]} of the Hugging Face hub"
    if is_offline():
        raise DownloadError(f"{where} is not in the cache and offline mode is on. Instead, {instead}")
    try:
        return _download_from_hub(repository, names, cache_dir)
    except (OSError, ValueError, errors.HTTPError) as error:  # the hub's own are an OSError or an HTTPError
        raise DownloadError(f"{where} could not be downloaded ({_reason(error)}). Instead, {instead}") from error


def _download_from_hub(repository: str, names: Sequence[str], cache_dir: Path | str | None) -> Path:
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    name, *others = names
    found = None
    try:
        found = get_hf_file_metadata(hf_hub_url(repository, name), timeout=ANSWER_SECONDS)
    except errors.HfHubHTTPError:
        pass  # an answer: the hub's own function knows whether it is worth asking again
    except errors.HTTPError as error:
        raise ConnectionError(
            f"there is no network, or it does not reach the hub: {str(error) or type(error).__name__}"
        ) from error
    if found is not None and found.size:
        get_limits().check("download_bytes", found.size, what=f"{name} of {found.size:,} bytes")
    try:
        path = Path(hf_hub_download(repository, name, cache_dir=cache_dir))
    except errors.RemoteEntryNotFoundError:
        if not others:
            raise
        return _download_from_hub(repository, others, cache_dir)
    if found is not None and found.etag and SHA256.fullmatch(found.etag):  # of large files it is their SHA-256
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != found.etag:
            path.resolve().unlink()
            raise OSError(f"what came has the SHA-256 {digest}, not {found.etag}, and was thrown away")
    return path


def fetch_folder_from_hub(
    repository: str,
    names: Sequence[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: Path | str | None = None,
) -> Path:
    """A folder with some files of one state of a repository; in offline mode the one in the hub's cache.

    Args:
        repository: ``user/name``.
        names: Files at the top of the repository.
        revision: Branch, tag or commit; the newest state of the main branch where None.
        token: Access token; the one stored by ``hf auth login`` where None.
        cache_dir: Folder instead of the hub's own cache (``HF_HOME``).

    Raises:
        DownloadError: It could not be had.
    """
    from huggingface_hub import errors, snapshot_download

    offline = is_offline()
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                allow_patterns=list(names),
                local_files_only=offline,
            )
        )
    except (OSError, ValueError, errors.HTTPError) as error:
        where = f"{repository} of the Hugging Face hub"
        if offline:
            raise DownloadError(
                f"{where} is not in the cache and offline mode is on (UNIFORMERV2_OFFLINE, HF_HUB_OFFLINE)."
            ) from error
        raise DownloadError(f"{where} could not be downloaded ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    told = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    return without_credentials(" ".join(str(told or error).split()))


def cached_from_hub(repository: str, names: Sequence[str], *, cache_dir: Path | str | None = None) -> Path | None:
    """The first of these files of a Hugging Face repository that is in the hub's own cache; None where none is.

    Args:
        repository: Such as ``"Andy1621/uniformerv2"``.
        names: Paths inside the repository.
        cache_dir: Folder instead of the hub's own cache (``HF_HOME``).
    """
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name, cache_dir=cache_dir) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)

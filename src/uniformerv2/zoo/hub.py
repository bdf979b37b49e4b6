"""Files of the Hugging Face hub, and timm's weights: from the cache without asking anybody, else fetched.

Without a network that is told at once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.limits import get_limits
from uniformerv2.core.terminal import without_credentials
from uniformerv2.zoo.download import CONVERT_A_COPY, DownloadError, cached_path, fetch, is_offline

# huggingface_hub and timm are imported where they are used: either takes longer than all of this package's own files.

__all__ = ["TimmWeights", "cached_from_hub", "fetch_folder_from_hub", "fetch_from_hub"]

SHA256: Final = re.compile(r"[0-9a-f]{64}")

ANSWER_SECONDS: Final = 5.0
"""The hub answers the first question within this time, or there is no network."""

GIVE_A_FILE: Final = "bring the file and give it as weights=, on the command line --backbone-weights FILE"
SAFE: Final = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
"""timm's default names in a repository, and those of the same weights that it prefers."""


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


@dataclass(frozen=True, kw_only=True)
class TimmWeights:
    """Weights that timm's name stands for: where they are published, whether they are here, and fetching them.

    timm would do it by itself, but asks the hub for every file, also for one that is in the cache, and without a
    network for most of a minute.

    Attributes:
        repository: On the Hugging Face hub; empty where they are elsewhere.
        filenames: In the repository; the first that is there counts.
        url: Where they are else.
        is_foreign: Only the model itself knows how to read the file.
    """

    repository: str
    filenames: tuple[str, ...]
    url: str
    is_foreign: bool

    @classmethod
    def of(cls, name: str) -> TimmWeights:
        """What is known of a name, with or without a tag; nobody is asked.

        Raises:
            ValueError: timm has no weights of this name.
        """
        from timm.models import get_pretrained_cfg, is_model, list_pretrained

        architecture, _, tag = name.partition(".")
        known = list_pretrained(f"{architecture}.*") if is_model(architecture) else []
        if not known or (tag and name not in known):
            there = f"of this architecture it has {', '.join(known)}" if known else "it has none of this architecture"
            raise ValueError(
                f"timm has no pretrained weights called {name!r}; {there}. Or give a file of weights, weights=, on the "
                "command line --backbone-weights FILE."
            )
        published: Any = get_pretrained_cfg(name)
        filename = published.hf_hub_filename or "pytorch_model.bin"
        custom = published.custom_load  # True is for the authors' file, of which the hub has a converted one
        return cls(
            repository=published.hf_hub_id or "",
            filenames=(SAFE[filename], filename) if filename in SAFE else (filename,),
            url=published.url or "",
            is_foreign=custom == "hf" if published.hf_hub_id else bool(custom),
        )

    def __str__(self) -> str:
        """Where they are."""
        return f"{self.repository} of the Hugging Face hub" if self.repository else self.url

    @property
    def is_cached(self) -> bool:
        """Whether they are on this machine."""
        if not self.repository:
            return cached_path(self.url).exists()
        return cached_from_hub(self.repository, self.filenames) is not None

    def overlay(self) -> dict[str, Any]:
        """For timm's ``create_model(pretrained_cfg_overlay=)``: the file, which is fetched where it is not there yet.

        Raises:
            DownloadError: It could not be had; says what to do instead.
        """
        if self.repository:
            file = fetch_from_hub(self.repository, self.filenames, instead=self._instead())
        else:
            file = fetch(self.url, instead=GIVE_A_FILE)
        return {"file": str(file), "custom_load": self.is_foreign}

    def _instead(self) -> str:
        from huggingface_hub.constants import HF_HUB_CACHE

        fetched = f"hf download {self.repository} {self.filenames[0]}"
        folder = f"models--{self.repository.replace('/', '--')}"
        return (
            f"{GIVE_A_FILE}; on a machine that has a network, this fetches it: {fetched}. Or copy the folder {folder} "
            f"of that machine's cache into {HF_HUB_CACHE}."
        )

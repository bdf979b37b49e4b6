"""timm's pretrained weights of an image ViT: where they are published, whether they are here, and fetching them.

timm would do it by itself, but asks the hub for every file, also for one that is in the cache, and without a network
for most of a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from timm.models import get_pretrained_cfg, is_model, list_pretrained

from uniformerv2.zoo.download import cached_path, fetch
from uniformerv2.zoo.hub import cached_from_hub, fetch_from_hub

__all__ = ["TimmWeights"]

GIVE_A_FILE: Final = "bring the file and give it as weights=, on the command line --backbone-weights FILE"
SAFE: Final = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
"""timm's default names in a repository, and those of the same weights that it prefers."""


@dataclass(frozen=True, kw_only=True)
class TimmWeights:
    """Weights that timm's name stands for.

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

"""One spelling for each file: ``a.mp4``, ``./a.mp4``, ``b/../a.mp4`` and a link to it are the same video."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

__all__ = ["Spellings"]

_ODD: Final = frozenset({"", ".", ".."})


class Spellings:
    """Gives each file the spelling under which it came first, so that paths can be compared as text from then on.

    Each folder is resolved and listed once for the links in it: asking a million files one by one takes longer.
    """

    def __init__(self) -> None:
        self._folders: dict[str, _Folder] = {}  # by its spelling, which ends with a slash or is empty
        self._spelled: dict[str, str] = {}  # where a folder is -> as it was spelled first
        self._linked: dict[str, str] = {}  # where a file is to which a link led -> the first such link
        self._seen: set[str] = set()

    def first(self, path: str) -> str:
        """The first spelling of this file; addresses with ``://`` are left as they are."""
        if "://" in path:
            return path
        cut = path.rfind("/") + 1
        spelled, name = path[:cut], path[cut:]
        if name in _ODD:
            spelled, slash, name = os.path.realpath(path).rpartition("/")
            spelled += slash
        folder = self._folders.get(spelled) or self._resolved(spelled)
        own = path if folder.first == spelled == path[:cut] else folder.first + name
        if name in folder.links:
            target = os.path.realpath(own)
            above, _, name = target.rpartition("/")
            listed = self._spelled.get(f"{above}/", f"{above}/") + name
            return listed if listed in self._seen else self._linked.setdefault(target, own)
        if self._linked and (link := self._linked.get(folder.place + name)):
            return link
        self._seen.add(own)
        return own

    def _resolved(self, spelled: str) -> _Folder:
        place = os.path.realpath(spelled or ".").rstrip("/") + "/"
        try:
            with os.scandir(place) as entries:
                links = frozenset(entry.name for entry in entries if entry.is_symlink())
        except OSError:  # what is wrong is said when its videos are read
            links = frozenset()
        folder = self._folders[spelled] = _Folder(self._spelled.setdefault(place, spelled), place, links)
        return folder


class _Folder(NamedTuple):
    """A folder as it was spelled first and where it is, both with a slash; and the names of the links in it."""

    first: str
    place: str
    links: frozenset[str]

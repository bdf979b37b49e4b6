"""One spelling for each file: ``a.mp4``, ``./a.mp4``, ``b/../a.mp4`` and a link to it are the same video."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["Spellings"]

_ODD: Final = frozenset({"", ".", ".."})


class Spellings:
    """Gives each file the spelling under which it came first, so that paths can be compared as text from then on.

    A folder is resolved once and each file is asked whether it is a link: a million paths take seconds, and no more
    memory than the paths themselves.
    """

    def __init__(self) -> None:
        self._folders: dict[str, tuple[str, str]] = {}  # as it is spelled -> as it was spelled first, where it is
        self._spelled: dict[str, str] = {}  # where a folder is -> as it was spelled first
        self._linked: dict[str, str] = {}  # where a file is to which a link led -> the first such link
        self._seen: set[str] = set()

    def first(self, path: str) -> str:
        """The first spelling of this file; addresses with ``://`` are left as they are."""
        if "://" in path:
            return path
        folder, place, name = self._split(path)
        own = path if path == folder + name else folder + name
        if os.path.islink(own):  # noqa: PTH114 a million calls
            target = os.path.realpath(own)
            above, _, name = target.rpartition("/")
            listed = self._spelled.get(f"{above}/", f"{above}/") + name
            return listed if listed in self._seen else self._linked.setdefault(target, own)
        if self._linked and (link := self._linked.get(place + name)):
            return link
        self._seen.add(own)
        return own

    def _split(self, path: str) -> tuple[str, str, str]:
        """The folder as it was spelled first and as it is, both with a slash; and the name in it."""
        folder, slash, name = path.rpartition("/")
        if name in _ODD:
            folder, slash, name = os.path.realpath(path).rpartition("/")
        folder += slash
        if folder not in self._folders:
            place = os.path.realpath(folder or ".").rstrip("/") + "/"
            self._folders[folder] = self._spelled.setdefault(place, folder), place
        return *self._folders[folder], name

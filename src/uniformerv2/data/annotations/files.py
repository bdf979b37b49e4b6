"""Are the videos where the list says? Asked once, before an epoch starts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uniformerv2.core.files import write_text
from uniformerv2.data.annotations.record import VideoRecord

__all__ = ["FileCheck", "check_files"]

_SHOWN: Final = 10


@dataclass(frozen=True)
class FileCheck:
    """What `check_files` found.

    Attributes:
        present: The records whose video is there, in their order.
        missing: The paths that are not there, each once.
        written_to: The file that lists ``missing``, where one was written.
    """

    present: list[VideoRecord]
    missing: tuple[str, ...]
    written_to: Path | None = None

    def __str__(self) -> str:
        """The count, the first ten, and where the rest is."""
        if not self.missing:
            return f"All {len(self.present)} records have their video."
        lines = [f"{len(self.missing)} videos are missing; {len(self.present)} records are left:"]
        lines += [f"  {path}" for path in self.missing[:_SHOWN]]
        more = len(self.missing) - _SHOWN
        if more > 0:
            lines.append(f"  and {more} more" + (f", all in {self.written_to}" if self.written_to else ""))
        return "\n".join(lines)


def check_files(records: Iterable[VideoRecord], *, missing_list: str | Path | None = None) -> FileCheck:
    """Sort the records by whether their video (or folder of frames) is on disk; addresses with ``://`` count as there.

    Args:
        records: What a reader returned.
        missing_list: Written with one missing path a line where there are more than ten.

    Raises:
        FileNotFoundError: Not one video is there: the prefix is wrong. The message shows one resolved path.
    """
    asked: dict[str, bool] = {}
    present = []
    for record in records:
        path = record.path
        if path not in asked:
            asked[path] = "://" in path or os.path.exists(path)  # noqa: PTH110 a million calls
        if asked[path]:
            present.append(record)
    missing = tuple(path for path, there in asked.items() if not there)
    if missing and not present:
        raise FileNotFoundError(
            f"Not one of the {len(missing)} videos is there. The first was looked for at "
            f"{str(Path(missing[0]).absolute())!r}; give root=, the folder that the paths of the list start from."
        )
    if missing_list is None or len(missing) <= _SHOWN:
        return FileCheck(present, missing)
    written = Path(missing_list)
    write_text(written, "".join(f"{missed}\n" for missed in missing))
    return FileCheck(present, missing, written)

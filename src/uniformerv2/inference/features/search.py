"""Which videos of an index are most like another one, and which class is: exact cosines, no training.

index = FeatureIndex.read("features.parquet")
for found in search(["clip.mp4"], FeatureExtractor("models/demo"), index):
    found.neighbours[0].video, found.neighbours[0].cosine
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from uniformerv2.data.transforms import Preprocessing
from uniformerv2.inference.features.extraction import FeatureExtractor
from uniformerv2.inference.features.index import ClassCentre, FeatureIndex, Neighbour
from uniformerv2.media.decoding import VideoError

__all__ = ["SearchResult", "fit_to_index", "search"]

FORMAT: Final = "uniformerv2-search-1"


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What is nearest to one video.

    Attributes:
        query: The path that was asked for.
        index: The file that was searched.
        duration_seconds: Of the query; None where nothing tells it.
        neighbours: Best first.
        classes: Best first; empty where nobody asked for them.
    """

    query: str
    index: str
    duration_seconds: float | None
    neighbours: tuple[Neighbour, ...]
    classes: tuple[ClassCentre, ...] = ()

    def __repr__(self) -> str:
        best = f"{self.neighbours[0].video} {self.neighbours[0].cosine:.3f}" if self.neighbours else "nothing"
        return f"<SearchResult of {self.query!r}: {best}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "format": FORMAT,
            "query": self.query,
            "index": self.index,
            "neighbours": [{**asdict(one), "cosine": round(one.cosine, 6)} for one in self.neighbours],
            "classes": [{**asdict(one), "cosine": round(one.cosine, 6)} for one in self.classes],
        }

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


def fit_to_index(extractor: FeatureExtractor, index: FeatureIndex) -> None:
    """Let queries go through what the videos of the index went through.

    Raises:
        ValueError: Another network made the index, or its preprocessing is not of this network.
    """
    if index.model != extractor.digest:
        raise ValueError(
            f"{index.path} was made with another model (digest {index.model}, here {extractor.digest}), and features "
            "of two models cannot be compared: give --model that one, or make the index again with this one."
        )
    try:
        extractor.predictor.preprocessing = Preprocessing.from_dict(index.preprocessing)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{index.path}: its preprocessing cannot be used: {error}") from error


def search(
    queries: Iterable[str | Path],
    extractor: FeatureExtractor,
    index: FeatureIndex,
    *,
    k: int = 10,
    by_class: bool = False,
) -> Iterator[SearchResult | VideoError]:
    """Find what is most like each of some videos.

    Args:
        queries: Paths.
        extractor: The network that made the index.
        index: Where to search.
        k: Neighbours, and classes, at most.
        by_class: Also which classes are nearest.

    Yields:
        The result, or for a video that cannot be read the ``VideoError`` in its place.

    Raises:
        ValueError: Another network made the index, or classes are asked for and it has none.
    """
    fit_to_index(extractor, index)
    for found in extractor.whole(queries):
        if isinstance(found, VideoError):
            yield found
            continue
        vector = found.vectors[0]
        yield SearchResult(
            query=found.video,
            index=str(index.path),
            duration_seconds=found.duration_seconds,
            neighbours=tuple(index.nearest(vector, k=k)),
            classes=tuple(index.nearest_classes(vector, k=k)) if by_class else (),
        )

"""``Prediction``: what a network says of one video, as scores, a table and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uniformerv2.core.messages import first_few

__all__ = ["NOT_FINITE", "ClassScore", "Prediction", "Timings"]

TABLE: Final = """<table><caption>{{ video }}</caption>
{% for item in top %}<tr><td>{{ item.name }}</td><td>{{ "%.4f" | format(item.score) }}</td>
<td><meter value="{{ item.score }}"></meter></td></tr>
{% endfor %}</table>"""

NOT_FINITE: Final = "what the network says of it is no finite number (NaN or infinite)"


@dataclass(frozen=True)
class ClassScore:
    """One class of a prediction; the score is a probability."""

    name: str
    index: int
    score: float


@dataclass(frozen=True)
class Timings:
    """Seconds that a prediction took."""

    decode_seconds: float
    preprocess_seconds: float
    compute_seconds: float


@dataclass(frozen=True)
class Prediction:
    """What the network says of one video.

    Attributes:
        video: The path, or "array" for frames given as such.
        scores: Probabilities [num_classes], the mean over the views.
        view_scores: Probabilities of each view [V, num_classes]: the crops of the first clip, then of the next.
        class_names: In the order of the scores; numbers where the checkpoint has no names.
        frame_indices: The frames of each clip, K lists of T.
        timings: Where the time went.
        duration_seconds: Duration of the video; None where it is unknown, as for frames given as an array.
    """

    video: str
    scores: NDArray[np.float32]
    view_scores: NDArray[np.float32]
    class_names: tuple[str, ...]
    frame_indices: tuple[tuple[int, ...], ...]
    timings: Timings
    duration_seconds: float | None = None

    def __repr__(self) -> str:
        found = first_few([f"{item.name} {item.score:.4f}" for item in self.top(len(self.scores))], shown=3)
        return f"<Prediction of {self.video!r}, {len(self.view_scores)} view(s): {found}>"

    def _repr_html_(self) -> str:
        """A table of the five best classes, for notebooks."""
        import jinja2  # takes longer to import than it takes to print a prediction

        template = jinja2.Environment(autoescape=True).from_string(TABLE)
        return template.render(video=self.video, top=self.top())

    def top(self, k: int = 5) -> list[ClassScore]:
        """The ``k`` most probable classes, best first; all of them where there are fewer."""
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [ClassScore(self.class_names[index], int(index), float(self.scores[index])) for index in order]

    def to_dict(self, *, top_k: int = 5) -> dict[str, Any]:
        """Plain values, for JSON: video, top classes, all scores, timings."""
        return {
            "video": self.video,
            "top": [{**asdict(item), "score": round(item.score, 6)} for item in self.top(top_k)],
            "scores": [round(float(score), 6) for score in self.scores],
            "num_views": len(self.view_scores),
            "timings": asdict(self.timings),
        }

    def to_json(self, *, top_k: int = 5) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(top_k=top_k), ensure_ascii=False, allow_nan=False)

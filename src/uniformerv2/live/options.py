"""EventRules and LinkRules: the options of ``uniformerv2 watch``, said once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from uniformerv2.core.options import option

__all__ = ["EventRules", "LinkRules"]


@dataclass(frozen=True, kw_only=True)
class EventRules:
    """When an action begins and when it has ended.

    Attributes:
        on: An action begins when its score reaches this.
        off: It lasts while its score is at least this.
        min_seconds: It is told once it has lasted so long; shorter ones are not.
        merge_seconds: It has ended when it was not seen for so long; until then it may go on.
        update_seconds: It is told again so often while it lasts.

    Raises:
        ValueError: A field outside its range.
    """

    on: float = option("score at which an action begins", 0.4, metavar="P")
    off: float = option("it lasts while its score is at least this", 0.2, metavar="P")
    min_seconds: float = option("shorter actions are not told", 1.0, metavar="S", least=0)
    merge_seconds: float = option("it ends when not seen for so long", 1.0, metavar="S", least=0)
    update_seconds: float = option("while it lasts it is told again so often", 5.0, metavar="S", least=0)

    def __post_init__(self) -> None:
        if not 0 < self.off <= self.on <= 1:
            raise ValueError(f"on and off are scores with 0 < off <= on <= 1, got on {self.on} and off {self.off}.")
        _check_least(self)


@dataclass(frozen=True, kw_only=True)
class LinkRules:
    """When a source counts as silent, and how it is taken up again.

    Attributes:
        open_seconds: How long a server or a device may take to answer.
        stall_seconds: A source whose last frame is older is told to be stalled.
        give_up_seconds: One whose last frame is older is left, and opened anew.
        max_wait: Between two tries lie at most so many seconds; the first wait is half a second, each next one twice as
            long, and a random part of it is left out, so that many watchers do not come back at once.
        retries: So many tries that follow each other may fail; None: any number.

    Raises:
        ValueError: A field outside its range.
    """

    open_seconds: float = option("how long a source may take to answer", 10.0, metavar="S", least=0.1)
    stall_seconds: float = option("stalled when the last frame is older", 3.0, metavar="S", least=0.1)
    give_up_seconds: float = option("opened anew when it is older than this", 10.0, metavar="S", least=0.1)
    max_wait: float = option("seconds between two tries, at most", 30.0, metavar="S", least=0.1)
    retries: int | None = option("tries that may fail in a row (default: any number)", metavar="N", least=0)

    def __post_init__(self) -> None:
        _check_least(self)
        if self.give_up_seconds < self.stall_seconds:
            raise ValueError(
                "give_up_seconds must be at least stall_seconds "
                f"({self.stall_seconds:g}), got {self.give_up_seconds:g}."
            )


def _check_least(rules: Any) -> None:
    for item in fields(rules):
        least, value = item.metadata.get("least"), getattr(rules, item.name)
        if least is not None and value is not None and not least <= value < math.inf:
            raise ValueError(f"{item.name} must be at least {least}, got {value}.")

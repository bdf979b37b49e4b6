"""Options that are the fields of a dataclass: said once, they make a command line, a table and a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

__all__ = ["Option", "flag_of", "option", "options_of"]


def option(
    about: str, default: Any = None, *, metavar: str | None = None, flag: str | None = None, row: str = "", **more: Any
) -> Any:
    """A field that is an option.

    Args:
        about: Help text.
        default: None leaves the choice to the plan.
        metavar: What stands for the value in the help.
        flag: Where it is not the field's name with hyphens.
        row: Title in the table of the plan; empty: no row of its own.
        **more: ``least``: the smallest number that is allowed; ``is_of_run=False``: the option may be another one when
            the training is resumed.
    """
    return field(default=default, metadata={"about": about, "metavar": metavar, "flag": flag, "row": row, **more})


@dataclass(frozen=True)
class Option:
    """An option of the command line.

    Attributes:
        name: The field.
        flag: As it is typed; without hyphens it is a position.
        kind: ``bool`` is a switch; one whose default is None can be put off too (``--no-...``).
        choices: What is allowed; None: anything of the kind.
        default: None: the plan chooses.
        metavar: What stands for the value in the help.
        about: Help text.
    """

    name: str
    flag: str
    kind: type
    choices: tuple[Any, ...] | None
    default: Any
    metavar: str | None
    about: str


def options_of(kind: type) -> Iterator[Option]:
    """The fields of a dataclass as options of the command line."""
    hints = get_type_hints(kind)
    for item in fields(kind):
        hint = hints[item.name]
        is_literal = get_origin(hint) is Literal
        choices = get_args(hint) if is_literal else item.metadata.get("choices")
        value_kind = next((one for one in (bool, int, float) if hint is one), str)
        about, metavar = item.metadata["about"], item.metadata["metavar"]
        yield Option(item.name, flag_of(item), value_kind, choices, item.default, metavar, about)


def flag_of(item: Field[Any]) -> str:
    """How an option is typed."""
    return item.metadata.get("flag") or f"--{item.name.replace('_', '-')}"

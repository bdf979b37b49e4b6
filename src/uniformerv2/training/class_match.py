"""Are the classes of the data those of the network, at the same numbers? Asked before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from uniformerv2.data.labels import ClassNames, in_order, whole_number

__all__ = ["check_names", "check_saved_names"]

SHOWN: Final = 5


def check_names(names: Sequence[str], own: Sequence[str], *, may_rename: bool) -> None:
    """That a class of the data is the network's class of the same number.

    A bare number is no name, except beside another whole number: class 2 is not the one that is called 10.

    Args:
        names: Of the data.
        own: Of the network; none where it does not know them.
        may_rename: Names that the network does not know are new ones for its classes.

    Raises:
        ValueError: It is not.
    """
    if not own:
        return
    known = ClassNames(own, called="the network's classes")
    for number, (name, ours) in enumerate(zip(names, own, strict=False)):
        found = known.find(name)
        is_bare = str(number) in {name, ours} and None in {whole_number(name), whole_number(ours)}
        if found == number or is_bare or (may_rename and found is None):
            continue
        raise ValueError(
            f"Class {number} is {name!r} in the data and {ours!r} in the network, whose {len(own)} classes are "
            f"{', '.join(map(repr, own[:SHOWN]))}{' ...' * (len(own) > SHOWN)}. For these, give data.classes all "
            "their names in this order; to train other ones, give the network a new head (model.new_head, and "
            "num_classes)."
        )


def check_saved_names(saved: Sequence[str] | None, names: Sequence[str], *, are_sorted: bool) -> None:
    """As ``check_names``, for the classes that a checkpoint of a training was made with.

    Args:
        saved: What stands in the checkpoint; None in those written before it did, when class folders called by
            numbers were sorted as text.
        names: Of the data.
        are_sorted: Their order was found by sorting them, not told.

    Raises:
        ValueError: They are others, or stand in another order, or may do so.
    """
    if saved is not None:
        check_names(names, saved, may_rename=False)
    elif are_sorted and in_order(names) != sorted(names):
        raise ValueError(
            f"The checkpoint does not say in which order its classes stand, and the data have {names[0]!r} to "
            f"{names[-1]!r} in the order of numbers; folders of such names were sorted as text when it was written. "
            "Give data.classes all names in the order of its training: sorted as text."
        )

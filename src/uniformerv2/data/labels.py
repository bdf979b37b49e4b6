"""Class names of the benchmarks: number to name, name to number, and maps between label spaces.

The lists are package data in ``label_names/``: one name a line, in the order of the published heads.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Final, Literal, get_args

from uniformerv2.core.messages import did_you_mean

__all__ = [
    "LABEL_SPACES",
    "RENAMED",
    "ClassNames",
    "LabelSpace",
    "check_names",
    "check_saved_names",
    "class_names_of",
    "in_order",
    "label_index",
    "label_map",
    "label_names",
    "whole_number",
]

LabelSpace = Literal[
    "activitynet",
    "diving48",
    "hacs",
    "hmdb51",
    "jester",
    "kinetics400",
    "kinetics400_authors_order",
    "kinetics600",
    "kinetics700",
    "kinetics710",
    "moments_in_time_v1",
    "something_something_v1",
    "something_something_v2",
    "ucf101",
]

LABEL_SPACES: Final[tuple[str, ...]] = get_args(LabelSpace)

# HACS labels its segments with ActivityNet's 200 classes.
_SAME_NAMES: Final = {"hacs": "activitynet"}

RENAMED: Final[dict[str, str]] = {
    # Kinetics-400 -> the name that Kinetics-600 and 700 gave the class
    "balloon blowing": "inflating balloons",
    "changing wheel": "changing wheel (not on bike)",
    "cooking sausages": "cooking sausages (not on barbeque)",
    "drinking": "sipping cup",
    "dying hair": "dyeing hair",
    "garbage collecting": "person collecting garbage",
    "hugging": "hugging (not baby)",
    "making bed": "making the bed",
    "opening bottle": "opening bottle (not wine)",
    "skiing (not slalom or crosscountry)": "skiing mono",
    "sniffing": "smelling feet",
    "tying tie": "tying necktie",
    # Kinetics-400 and 600 -> Kinetics-700
    "picking fruit": "picking apples",
    # Kinetics-600 spells one name with a small letter
    "passing american football (not in game)": "passing American football (not in game)",
    # Kinetics-600 and 700 -> the name that Kinetics-400 gave the class
    "throwing ball (not baseball or American football)": "throwing ball",
}
"""Kinetics classes that changed their name between releases, and the name that Kinetics-710 keeps."""


def whole_number(name: str | int) -> int | None:
    """The number that a name is, and None where it is none of a size that a class can have.

    >>> whole_number("07"), whole_number("2.0"), whole_number("1.5"), whole_number("class 2")
    (7, 2, None, None)
    """
    # A table with gaps makes 2.0 of 2.
    match = re.fullmatch(r"(-?[0-9]{1,18})(\.0+)?", str(name))
    return int(match[1]) if match else None


def in_order(names: Iterable[str]) -> list[str]:
    """Class names sorted: as numbers where every one of them is a whole number, else as text.

    >>> in_order(["10", "9", "0"]), in_order(["10", "9", "zero"])
    (['0', '9', '10'], ['10', '9', 'zero'])
    """
    names = list(names)
    numbers = {name: number for name in names if (number := whole_number(name)) is not None}
    if len(numbers) == len(set(names)):
        return sorted(names, key=lambda name: (numbers[name], name))
    return sorted(names)


def _loosely(name: str) -> str:
    """A name without case, underscores, brackets and repeated blanks; of a whole number its value."""
    if (number := whole_number(name)) is not None:
        return str(number)
    return " ".join(name.replace("[", "").replace("]", "").replace("_", " ").split()).casefold()


class ClassNames:
    """Class names in head order, looked up by number and by name.

    A name is found exactly, or else with case, underscores, square brackets and repeated blanks forgotten, where
    that is not ambiguous. Names that are whole numbers are found by their value: ``02`` is ``2``. A bare number is the
    class of that name where all names are whole numbers, else the class at that place.

    Args:
        names: One name per class, none twice.
        called: What error messages call this set of classes.

    Raises:
        ValueError: There are no names, or a name occurs twice.

    >>> classes = ClassNames(["riding a bike", "Archery"])
    >>> classes.index("Riding_a_bike"), classes[1], len(classes)
    (0, 'Archery', 2)
    >>> classes.numbered(1), ClassNames(["0", "1", "10", "2"]).numbered(2)
    (1, 3)
    """

    def __init__(self, names: Iterable[str], *, called: str = "the given classes") -> None:
        self.names: Final = tuple(names)
        self.called: Final = called
        if not self.names:
            raise ValueError(f"{called}: no class names were given; at least one is needed.")
        self._exact: Final = {name: number for number, name in enumerate(self.names)}
        if len(self._exact) < len(self.names):
            twice = next(name for number, name in enumerate(self.names) if self._exact[name] != number)
            raise ValueError(f"{called}: the class {twice!r} occurs twice; each name needs its own number.")
        self._loose: Final[dict[str, int | None]] = {}
        for number, name in enumerate(self.names):
            key = _loosely(name)
            self._loose[key] = None if key in self._loose else number
        self.are_numbers: Final = all(whole_number(name) is not None for name in self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> str:
        return self.names[number]

    def find(self, name: str) -> int | None:
        """The class number of ``name``, or None where no class is called so."""
        number = self._exact.get(name)
        return self._loose.get(_loosely(name)) if number is None else number

    def index(self, name: str) -> int:
        """The class number of ``name``.

        Raises:
            ValueError: No class is called so; the message names the nearest ones.
        """
        number = self.find(name)
        if number is None:
            raise ValueError(f"No class of {self.called} is called {name!r}.{self._nearest(name)}")
        return number

    def numbered(self, number: int) -> int:
        """The class that a bare number means: see above.

        Raises:
            ValueError: No class is called or placed so, or one is called and another is placed so.
        """
        called = self.find(str(number))
        if self.are_numbers:
            if called is None:
                raise ValueError(
                    f"The label {number} is none of {self.called}, whose names are numbers: {self._some()}. Such a "
                    "label is the name of a class, not its place among them."
                )
            return called
        if not 0 <= number < len(self):
            if called is None:
                raise ValueError(
                    f"The label {number} is outside the classes: numbers from 0 to {len(self) - 1} are allowed, as "
                    f"there are {len(self)} class names."
                )
            return called
        if called not in {None, number}:
            raise ValueError(
                f"The label {number} may be class {called}, which is called {self.names[called or 0]!r}, or class "
                f"{number}, which is called {self[number]!r}: write names instead of numbers."
            )
        return number

    def _some(self) -> str:
        return ", ".join(map(repr, self.names[:SHOWN])) + (" ..." if len(self) > SHOWN else "")

    def _nearest(self, name: str) -> str:
        loose = {_loosely(known): known for known in self.names}
        near = [loose[key] for key in difflib.get_close_matches(_loosely(name), loose, n=3, cutoff=0.6)]
        if near:
            return f" Did you mean {' or '.join(map(repr, near))}?"
        some = ", ".join(map(repr, self.names[:3]))
        return f" It has {len(self)} classes, such as {some}."


@cache
def _space(space: str) -> ClassNames:
    if space not in LABEL_SPACES:
        hint = did_you_mean(space, LABEL_SPACES, cutoff=0.5)
        raise ValueError(f"No label space is called {space!r}.{hint} Allowed: {', '.join(LABEL_SPACES)}.")
    file = files("uniformerv2.data").joinpath("label_names", f"{_SAME_NAMES.get(space, space)}.txt")
    return ClassNames(file.read_text(encoding="utf-8").splitlines(), called=space)


def class_names_of(classes: LabelSpace | str | Sequence[str]) -> ClassNames:
    """Classes from the name of a label space, or from the names themselves."""
    return _space(classes) if isinstance(classes, str) else ClassNames(classes)


def label_names(space: LabelSpace | str) -> tuple[str, ...]:
    """The class names of a benchmark, in the order of its published head.

    ``kinetics400_authors_order`` is the order of the authors' own Kinetics-400 heads; every other list has the order
    of the MMAction2 heads.

    >>> label_names("kinetics400")[5]
    'archery'
    """
    return _space(space).names


def label_index(space: LabelSpace | str, name: str) -> int:
    """The number of a class in a benchmark's head; the error for an unknown name says which are near.

    >>> label_index("something_something_v2", "Closing [something]")
    5
    """
    return _space(space).index(name)


@cache
def label_map(source: LabelSpace | str, target: LabelSpace | str) -> tuple[int, ...]:
    """The number in ``source`` of each class of ``target``; names of Kinetics are joined through `RENAMED`.

    The map picks a smaller head's rows out of a larger one (``head.weight[list(label_map(...))]``), and carries a
    label the other way: class ``i`` of ``target`` is class ``label_map(source, target)[i]`` of ``source``.

    Raises:
        ValueError: ``target`` has classes that ``source`` has not.

    >>> label_map("kinetics710", "kinetics600")[:4]
    (0, 661, 611, 1)
    """
    known = {RENAMED.get(name, name): number for number, name in enumerate(label_names(source))}
    wanted = [RENAMED.get(name, name) for name in label_names(target)]
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} of the {len(wanted)} classes of {target}, for instance "
            f"{', '.join(map(repr, missing[:3]))}: there is no map from {source} to {target}."
        )
    return tuple(known[name] for name in wanted)


SHOWN: Final = 5


def check_names(names: Sequence[str], own: Sequence[str], *, may_rename: bool) -> None:
    """That a class of the data is the network's class of the same number.

    A bare number is no name, except beside another whole number: class 2 is not the one that is called 10.

    Args:
        names: Class names of the data.
        own: Class names of the network; none where it does not know them.
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
    """Do what ``check_names`` does, for the classes that a checkpoint of a training was made with.

    Args:
        saved: What stands in the checkpoint; None in those written before it did, when class folders called by
            numbers were sorted as text.
        names: Class names of the data.
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

"""Classes are matched by their names: between data sets, models and checkpoints.

Two lists of the same length say nothing about each other: files number the same classes in another
order, and a test set may lack some.
"""

import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["check_spelling", "list_names", "match_class_names", "spelled_alike"]

_NUM_LISTED = 100


def match_class_names(
    classes: Sequence[str], model_classes: Sequence[str], *, of: str, model: str = "the model"
) -> list[int]:
    """The place of each of a data set's classes among the model's.

    Args:
        classes: K names of the data set, each once.
        model_classes: the model's names in the order of its outputs, each once. It may have more.
        of: whose `classes` are, for the error, such as "data set 'val'".
        model: whose `model_classes` are, likewise.

    Returns:
        K indices into `model_classes`.

    Raises:
        ValueError: a class that the model does not have, with both lists; one that it has in
            another spelling, see `check_spelling`; or a name that occurs twice, unless the lists
            are the same.
    """
    if list(classes) == list(model_classes):
        return list(range(len(classes)))
    check_spelling(classes, model_classes, of=of, of_others=model)
    for names, owner in ((classes, of), (model_classes, model)):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"{owner} has the class names {list_names(twice)} more than once. Classes are "
                "matched by name: give each its own"
            )
    place = {name: i for i, name in enumerate(model_classes)}
    unknown = [name for name in classes if name not in place]
    if unknown:
        raise ValueError(
            f"{of} has {len(unknown)} classes that {model} does not have: {list_names(unknown)}. "
            f"The {len(classes)} classes of {of}: {list_names(classes)}. "
            f"The {len(model_classes)} of {model}: {list_names(model_classes)}"
        )
    return [place[name] for name in classes]


def check_spelling(names: Iterable[str], others: Iterable[str], *, of: str, of_others: str) -> None:
    """Refuse names that the other list has in another spelling only.

    Args:
        names: of classes.
        others: names to compare them with.
        of: whose `names` are, for the error, such as "data set 'val'".
        of_others: whose `others` are, likewise.

    Raises:
        ValueError: a name of one list is not in the other, but differs from one there only in upper
            and lower case or in blanks; names both.
    """
    names, others = list(names), list(others)
    known, taken = set(others), set(names)
    folded = {_fold(other): other for other in others if other not in taken}
    pairs = [(n, folded[_fold(n)]) for n in names if n not in known and _fold(n) in folded]
    if pairs:
        spelled = ", ".join(f"{_shown(a)} and {_shown(b)}" for a, b in pairs)
        raise ValueError(
            f"class names of {of} and {of_others} differ in upper and lower case or blanks only: "
            f"{spelled}. Classes are matched by name: write them in one way"
        )


def spelled_alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names in one list that differ in upper and lower case or blanks only.

    Args:
        names: of classes.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_fold(name), []).append(name)
    return [group for group in groups.values() if len(set(group)) > 1]


def list_names(names: Sequence[str]) -> str:
    """All names with commas, or the first hundred and how many more there are.

    Args:
        names: of classes.
    """
    shown = ", ".join(map(repr, names[:_NUM_LISTED]))
    more = len(names) - _NUM_LISTED
    return f"{shown} and {more} more" if more > 0 else shown or "none"


def _shown(name: str) -> str:
    """The name; one beyond ASCII with its escapes too, as letters of two scripts may look alike."""
    return repr(name) if name.isascii() else f"{name!r} ({name!a})"


def _fold(name: str) -> str:
    """Without case, blanks, marks that are not seen, and the several ways to write one letter."""
    name = unicodedata.normalize("NFKC", name)
    seen = (c for c in name if not c.isspace() and unicodedata.category(c) != "Cf")
    return "".join(seen).casefold()

"""Classes that are matched by name."""

import re

import pytest

from iou_balanced.formats.class_names import check_spelling, list_names, match_class_names


def match(classes, model_classes):
    return match_class_names(classes, model_classes, of="data set 'val'", model="the file")


def test_the_places_among_the_models():
    assert match(["dog", "cat"], ["cat", "emu", "dog"]) == [2, 0]
    assert match([], ["cat"]) == []


def test_an_unknown_class():
    message = (
        "data set 'val' has 1 classes that the file does not have: 'emu'. The 2 classes of "
        "data set 'val': 'emu', 'cat'. The 2 of the file: 'cat', 'dog'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        match(["emu", "cat"], ["cat", "dog"])


@pytest.mark.parametrize("name", ["Cat", "cat ", "C AT"])
def test_another_spelling(name):
    with pytest.raises(ValueError, match=f"case or blanks only: '{name}' and 'cat'"):
        match([name, "dog"], ["dog", "cat"])
    # Of two classes that differ so, each is itself.
    assert match(["cat"], [name, "cat"]) == [1]
    check_spelling(["dog"], ["cat", name], of="a", of_others="b")


def test_a_name_that_occurs_twice():
    """The lists are compared as a whole first: some files in use have such."""
    assert match(["cat", "cat"], ["cat", "cat"]) == [0, 1]
    with pytest.raises(ValueError, match="the file has the class names 'cat' more than once"):
        match(["cat"], ["cat", "cat"])
    with pytest.raises(ValueError, match="data set 'val' has the class names 'cat' more than once"):
        match(["cat", "cat"], ["cat", "dog"])


def test_long_lists_are_cut():
    assert list_names([]) == "none"
    text = list_names([str(i) for i in range(103)])
    assert text.startswith("'0', '1', ") and text.endswith("'99' and 3 more")

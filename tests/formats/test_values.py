import math

import pytest

from iou_balanced.formats.values import IdIndex, in_order, is_id, parse_flag, parse_number


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3),
        (2.5, 2.5),
        ("3", 3),
        (" 2.50 ", 2.5),
        ("-1e3", -1000.0),
        (2**70, 2**70),
        (10**400, None),
        ("-1" + "0" * 400, None),
        ("1,5", None),
        ("1_000", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        (math.nan, None),
        (-math.inf, None),
        (True, None),
        (None, None),
        ([3], None),
        ({}, None),
    ],
)
def test_numbers(value, number):
    found = parse_number(value)
    assert found == number and type(found) is type(number)


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "1.0", " true", "Yes"])
def test_flags_that_are_set(value):
    assert parse_flag(value) == 1


@pytest.mark.parametrize("value", [0, 0.0, False, "0", "False", "no"])
def test_flags_that_are_not_set(value):
    assert parse_flag(value) == 0


@pytest.mark.parametrize("value", [2, -1, 0.5, "maybe", "", None, [1], math.nan])
def test_no_flags(value):
    assert parse_flag(value) is None


def test_what_can_be_an_id():
    assert all(is_id(x) for x in (0, -3, 2**80, 1.0, "a", "0"))
    assert not any(is_id(x) for x in (1.5, math.nan, math.inf, True, None, "", " ", [], {}))


def test_a_reference_of_another_type_is_found_where_it_is_unambiguous():
    index = IdIndex([0, 7.0, "im1", "12"])
    places = [index.find(x) for x in (0, "0", 7, "7", "7.0", "im1", " im1 ", 12, "12")]
    assert places == [0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert index.num_other_type == 5  # not 7 for 7.0
    assert [index.find(x) for x in (8, "x", None, True, 0.5, [0])] == [None] * 6
    both = IdIndex([1, "1"])
    assert [both.find(1), both.find("1"), both.find("01")] == [0, 1, None]
    assert IdIndex([1]).find("01") == 0


def test_order_of_ids():
    assert in_order([10, 9, -1, 2**70]) == [2, 1, 0, 3]
    assert in_order(["b", "a"]) == [1, 0]
    assert in_order([3, "a", 1]) == [0, 1, 2]

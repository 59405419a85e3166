import json
import math

import numpy as np
import pytest
import torch

from iou_balanced.data import ClassCounts
from iou_balanced.data.class_counts import format_class_table


def box(category_id, **more):
    return {"category_id": category_id, "bbox": [0, 0, 5, 5], "bbox_mode": 0, "iscrowd": 0, **more}


# Image a: two cats, a dog, a crowd of dogs. Image b: a cat, a crowd of cats. Image c: a crowd of
# birds. Image d: no box. Image e: no annotations at all.
# Cat: boxes 2 + 1, images a and b. Dog: one box, image a. Bird: crowds only.
RECORDS = [
    {"file_name": "a.png", "annotations": [box(0), box(1), box(0), box(1, iscrowd=1)]},
    {"file_name": "b.png", "annotations": [box(0, iscrowd=1), box(0)]},
    {"file_name": "c.png", "annotations": [box(2, iscrowd=1)]},
    {"file_name": "d.png", "annotations": []},
    {"file_name": "e.png"},
]
NAMES = ["cat", "dog", "bird"]
PETS = ClassCounts(
    class_names=NAMES, instances=[3, 1, 0], images=[2, 1, 0], num_images=5, name="pets"
)


def counts_of(*instances, **more):
    """Classes "a", "b", ... with a box in each image."""
    names = [chr(ord("a") + k) for k in range(len(instances))]
    return ClassCounts(
        **{"class_names": names, "instances": instances, "images": instances, "num_images": 10_000}
        | more
    )


def test_counts_by_hand():
    counts = ClassCounts.from_dicts(RECORDS, NAMES, name="pets")
    assert counts == PETS
    assert counts.class_names == ("cat", "dog", "bird")
    assert (counts.instances, counts.images, counts.num_images) == ((3, 1, 0), (2, 1, 0), 5)
    assert ClassCounts.from_dicts([], NAMES).instances == (0, 0, 0)


def test_difficult_boxes_count_unless_training_ignores_them():
    records = [{"annotations": [box(0, difficult=1), box(0, difficult=0)]}]
    records.append({"annotations": [box(0, difficult=1)]})
    assert ClassCounts.from_dicts(records, ["cat"]).instances == (3,)
    counts = ClassCounts.from_dicts(records, ["cat"], ignore_difficult=True)
    assert (counts.instances, counts.images) == ((1,), (1,))


@pytest.mark.parametrize("category_id", [3, -1, None, "dog", 0.5])
def test_unknown_class(category_id):
    records = [*RECORDS, {"file_name": "f.png", "annotations": [box(0), box(category_id)]}]
    with pytest.raises(ValueError) as error:
        ClassCounts.from_dicts(records, NAMES, name="pets")
    assert str(error.value) == (
        "data set 'pets', image f.png, box 1: Expected category_id to be a class in [0, 3), "
        f"but got {category_id!r}"
    )
    # Training leaves crowds out, whatever they are.
    records[-1] = {"image_id": 9, "annotations": [box(category_id, iscrowd=1)]}
    assert ClassCounts.from_dicts(records, NAMES, name="pets").instances == PETS.instances


def test_numpy_class_ids():
    records = [{"annotations": [box(np.int64(1)), box(1)]}]
    assert ClassCounts.from_dicts(records, NAMES).instances == (0, 2, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [1]}, r"to have the same length, but got \[2, 2, 1\]"),
        ({"images": [5, 1]}, "4 instances of 'a' in 5 of 10000 images"),
        ({"images": [0, 2]}, "4 instances of 'a' in 0 of 10000 images"),
        ({"num_images": 3}, "4 instances of 'a' in 4 of 3 images"),
        ({"instances": [4, -2], "images": [4, -2]}, "-2 instances of 'b'"),
    ],
)
def test_impossible_counts(changes, message):
    with pytest.raises(ValueError, match=message):
        counts_of(4, 2, **changes)


def test_counts_cannot_be_changed():
    with pytest.raises(AttributeError):
        PETS.num_images = 6
    assert hash(PETS) == hash(ClassCounts.from_dicts(RECORDS, NAMES, name="pets"))


def test_file(tmp_path):
    path = tmp_path / "new folder" / "class_counts.json"
    names = ['a "b", c', "Möwe", "bird"]
    counts = ClassCounts.from_dicts(RECORDS, names, name="pets")
    assert counts.save(path) == path
    assert ClassCounts.load(str(path)) == counts
    assert json.loads(path.read_text())["classes"][0]["instances"] == 3
    # For people: a line for each class.
    assert '    {"name": "Möwe", "instances": 1, "images": 1},\n' in path.read_text("utf-8")
    counts_of(7).save(path)
    assert ClassCounts.load(path).instances == (7,)
    assert [p.name for p in path.parent.iterdir()] == ["class_counts.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a file of class counts: Expecting property name"),
        ("[]", "is not a file of class counts: list indices"),
        ('{"classes": []}', "is not a file of class counts: lacks 'num_images'"),
        ('{"classes": [{"name": "a"}]}', "lacks 'instances'"),
        (
            '{"data_set": "x", "num_images": 1, '
            '"classes": [{"name": "a", "instances": 2, "images": 2}]}',
            "counts of one data set, but got 2 instances of 'a' in 2 of 1 images",
        ),
    ],
)
def test_bad_file(tmp_path, text, message):
    path = tmp_path / "counts.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        ClassCounts.load(path)
    assert str(path) in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        ClassCounts.load(tmp_path / "none.json")


def test_reordered():
    counts = PETS.reordered(["bird", "cat", "dog"])
    assert (counts.instances, counts.images) == ((0, 3, 1), (0, 2, 1))
    assert (counts.name, counts.num_images) == ("pets", 5)
    with pytest.raises(ValueError) as error:
        PETS.reordered(["cat", "cow", "dog", "hen", "ox", "pig"], source="counts.json")
    assert str(error.value) == (
        "Expected class counts counts.json to have the 6 classes of the evaluation, "
        "but they lack 'cow', 'hen', 'ox', and 1 more; they have also 'bird'"
    )
    with pytest.raises(ValueError, match=r"class counts 'pets' .* a name occurs twice in these"):
        PETS.reordered(["cat", "cat", "dog", "bird"])
    with pytest.raises(ValueError, match="they have more than once 'a'"):
        counts_of(2, 1, class_names=["a", "a"]).reordered(["a"])


def test_table():
    counts = counts_of(30, 2, 1181, 0, name="letters")
    alpha = [1213 / (4 * 30), 1213 / (4 * 2), 1213 / (4 * 1181), math.nan]  # Eq. 5: 1213 boxes
    lines = counts.table(alpha, torch.tensor([1.5, 8.0, 0.96, 2000.0])).splitlines()
    assert lines[0] == (
        "letters: 1,213 instances of 4 classes in 10,000 images, the rarest class first"
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    assert rows[0] == ["class", "instances", "images", "alpha", "final weight"]
    assert rows[2:] == [
        ["d", "0", "0", "-", "2000"],
        ["b", "2", "2", "151.6", "8.000"],
        ["a", "30", "30", "10.11", "1.500"],
        ["c", "1181", "1181", "0.2568", "0.9600"],
    ]
    assert "alpha" not in counts.table() and "final" not in counts.table(alpha)
    with pytest.raises(ValueError, match="`final_weight` to have 4 values, but got 1"):
        counts.table(alpha, [1.0])


def test_many_classes_stand_side_by_side():
    rows = [[f"class {k}", k] for k in range(81)]
    lines = format_class_table(["class", "n"], rows).splitlines()
    assert len(lines) == 2 + 41  # 81 / 2, rounded up
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [c[0] for c in cells] + [c[2] for c in cells][:40] == [f"class {k}" for k in range(81)]
    assert cells[0] == ["class 0", "0", "class 41", "41"] and cells[40][2:] == ["", ""]
    assert len(format_class_table(["class", "n"], rows[:20]).splitlines()) == 22
    assert "| 007 " in format_class_table(["class"], [["007"]])  # a name that looks like a number

"""Extreme weights, and the command that counts a file."""

import math
import runpy
import sys
import warnings
from decimal import Decimal

import pytest
from detectron2.data import DatasetCatalog

from iou_balanced.data import ClassCounts, register_coco_json, warn_extreme
from iou_balanced.data.class_counts import __main__ as command
from iou_balanced.losses.reweighting import inverse_frequency_weights


def test_coco_is_not_extreme():
    # 849949 boxes, 198 of the rarest class: 53.7.
    instances = [198] + [(849949 - 198) // 79] * 79
    alpha = inverse_frequency_weights(instances)
    assert alpha.max() == pytest.approx(53.7, abs=0.05)
    assert warn_extreme(alpha, [str(k) for k in range(80)]) is None


def test_extreme_weight():
    # (60 - 1) / (1181 - 1) = 0.05
    alpha = [0.9, 1181.0, 61.0]
    assert warn_extreme(alpha, ["a", "b", "c"], instances=[9, 1, 2]) == (
        "The weight of class 'b' (1 instance) is 1181.0, more than 60, which can make the "
        "training unstable: an intensity of 0.05 would keep all weights within that."
    )
    assert "of class 'c' is 61.0, more than 10," in warn_extreme([61.0], ["c"], 10)
    assert warn_extreme([60.0], ["a"]) is None and warn_extreme([], []) is None


@pytest.mark.parametrize("most", [60.001, 61, 119, 100, 204.4482, 99999, 3e7])
def test_intensity_is_the_largest_of_two_digits(most):
    text = warn_extreme([1.0, most], ["a", "b"]).split("intensity of ")[1].split()[0]
    intensity = Decimal(text)
    assert len(intensity.as_tuple().digits) <= 2 and "E" not in text
    one_more = intensity + Decimal((0, (1,), intensity.adjusted() - 1))
    limit = 60 + 1e-9
    assert 1 + float(intensity) * (most - 1) <= limit < 1 + float(one_more) * (most - 1)


def test_intensity_is_not_spoilt_by_binary_fractions():
    # 0.29 is a bit less in binary, and would be cut to 0.28: 59 / 0.29 + 1 = 204.448...
    assert "intensity of 0.29 " in warn_extreme([59 / 0.29 + 1], ["a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], ["a"], 1.0), "`limit` to be greater than 1, but got 1.0"),
        (([1.0], ["a", "b"]), "`alpha` to have 2 values, but got 1"),
        (([math.inf], ["a"]), "`alpha` to be finite"),
    ],
)
def test_bad_arguments_of_the_warning(arguments, message):
    with pytest.raises(ValueError, match=message):
        warn_extreme(*arguments)


def test_counts_of_a_file_are_those_of_training(make_coco):
    json_file, image_root = make_coco()
    counts = command.count_json_file(json_file)
    # Categories in the order of their ids: dog (2), cat (9). One of the two dogs is a crowd.
    assert counts == ClassCounts(["dog", "cat"], [1, 1], [1, 1], 2, "instances")
    name = register_coco_json(name="mine", json_file=json_file, image_root=image_root)
    trained = ClassCounts.from_dicts(DatasetCatalog.get(name), ["dog", "cat"], name="mine")
    assert (trained.class_names, trained.instances) == (counts.class_names, counts.instances)
    assert trained.images == counts.images


def test_command(make_coco, coco_box, tmp_path, capsys):
    boxes = [coco_box(i, 7, 9) for i in range(121)] + [coco_box(200, 5, 2)]
    json_file, _ = make_coco(
        annotations=[*boxes, coco_box(201, 99, 9)],  # of an unknown image, which is passed over
        categories=[{"id": i, "name": n} for i, n in [(9, "cat"), (2, "dog"), (4, "emu")]],
    )
    output = tmp_path / "counts.json"
    command.main(["--json-file", str(json_file), "--output", str(output)])
    lines = capsys.readouterr().out.splitlines()
    # Eq. 5: 122 / (3 * 1) = 40.67 and 122 / (3 * 121) = 0.3361
    rows = [line.replace(" ", "") for line in lines[3:6]]
    assert rows == ["|emu|0|0|-|", "|dog|1|1|40.67|", "|cat|121|1|0.3361|"]
    assert lines[6] == "Without any instance, and so without a weight by Eq. 5: emu."
    assert lines[7:] == [f"Wrote {output}."]
    assert ClassCounts.load(output).instances == (1, 0, 121)


def test_command_warns_of_extreme_weights(make_coco, coco_box, capsys):
    # 201 boxes, one of a dog: 201 / (2 * 1) = 100.5, and 59 / 99.5 = 0.593
    json_file, _ = make_coco(annotations=[coco_box(i, 7, 2 if i == 9 else 9) for i in range(201)])
    command.main(["--json-file", str(json_file)])
    out = capsys.readouterr().out
    assert "class 'dog' (1 instance) is 100.5" in out and "an intensity of 0.59 " in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": None}, "not COCO JSON with annotations: .* lacks 'annotations'"),
        ({"images": 3}, "is not COCO JSON"),
        (
            {"categories": [{"id": 9, "name": "cat"}, {"id": 9, "name": "dog"}]},
            "category id 9 twice, for 'cat' and for 'dog'",
        ),
    ],
)
def test_command_on_bad_files(make_coco, changes, message):
    json_file, _ = make_coco(**changes)
    with pytest.raises(SystemExit, match=message):
        command.main(["--json-file", str(json_file)])
    json_file.write_text("{")
    with pytest.raises(SystemExit, match=r"instances\.json is not JSON"):
        command.main(["--json-file", str(json_file)])
    with pytest.raises(SystemExit, match="No such file"):
        command.main(["--json-file", str(json_file) + "x"])


def test_command_tells_what_does_not_count(make_coco, coco_box, capsys):
    boxes = [
        coco_box(1, 7, 9),
        coco_box(2, 7, 5),
        coco_box(3, 7, 9, iscrowd="1"),
        coco_box(4, 8, 9),
    ]
    json_file, _ = make_coco(annotations=boxes)
    command.main(["--json-file", str(json_file)])
    out = capsys.readouterr().err
    assert "1 x box of an unknown class" in out and "image a.png: category_id 5" in out
    assert "1 x box of an image that the file does not list" in out
    assert "iscrowd: '1'" in out  # read as one, so that one cat counts
    assert command.count_json_file(json_file).instances == (0, 1)


def test_python_m(make_coco, monkeypatch, capsys):
    json_file, _ = make_coco()
    monkeypatch.setattr(sys, "argv", ["-", "--json-file", str(json_file)])
    monkeypatch.delitem(sys.modules, command.__name__)  # as in a fresh process
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # python -m warns of a module that its package imports
        runpy.run_module("iou_balanced.data.class_counts", run_name="__main__", alter_sys=True)
    assert "2 instances of 2 classes in 2 images" in capsys.readouterr().out

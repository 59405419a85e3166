"""config.yaml of earlier starts: one file for each that differs, however often a run is resumed."""

import pytest

from iou_balanced.engine.kept_config import former_config_kept


def start(folder, content, *, eval_only=False):
    with former_config_kept(str(folder), eval_only):
        (folder / "config.yaml").write_text(content)  # as Detectron2 does


def kept(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("starts", "former"),
    [
        ("a", ""),
        ("a" * 200, ""),
        ("ab", "a"),
        ("abb", "a"),
        ("abab", "ab"),
        ("abc", "ab"),
        ("abcacb" * 30, "abc"),
    ],
)
def test_one_copy_of_each(tmp_path, starts, former):
    for content in starts:
        start(tmp_path, content)
    expected = {f"config.yaml.{i}": content for i, content in enumerate(former, start=1)}
    assert kept(tmp_path) == {"config.yaml": starts[-1], **expected}


@pytest.mark.parametrize("evaluated", ["a", "b", "c"])
def test_an_evaluation_changes_none(tmp_path, evaluated):
    for content in "ab":
        start(tmp_path, content)
    start(tmp_path, evaluated, eval_only=True)
    assert kept(tmp_path) == {
        "config.yaml": "b",
        "config.yaml.1": "a",
        "config_eval.yaml": evaluated,
    }


def test_a_start_that_fails_leaves_the_former(tmp_path):
    start(tmp_path, "a")
    with pytest.raises(OSError, match="full"), former_config_kept(str(tmp_path), False):
        raise OSError("full")
    assert kept(tmp_path)["config.yaml"] == "a"

"""A training image that cannot be read: the end by name, or another in its place with a count."""

import json

import pytest
from detectron2.config import get_cfg
from detectron2.data import build_detection_train_loader

from iou_balanced.data.image_reading import SKIPPED, NamedErrors
from iou_balanced.engine import UserError
from iou_balanced.engine.bad_images import SkipCounter, training_mapper
from iou_balanced.engine.yaml_trainer import BalancedDefaultTrainer
from iou_balanced.formats.image_files import ImageError
from iou_balanced.modeling import add_iou_balanced_config

from .helpers import read_metrics
from .test_data_errors import clean_catalogs, photos, run  # noqa: F401  (fixtures)

BAD = {"b.jpg", "d.jpg"}


def read(record):
    if record["file_name"] in BAD:
        raise OSError("image file is truncated")
    return {"file_name": record["file_name"]}


def records(names="abcdef"):
    return [{"file_name": f"{name}.jpg"} for name in names]


def test_the_end_by_name():
    mapper = training_mapper(read, records(), "error")
    with pytest.raises(
        ImageError, match=r"^image b\.jpg cannot be used \(OSError: image file is t"
    ):
        mapper({"file_name": "b.jpg"})


def test_another_image_in_its_place():
    mapper = training_mapper(read, records(), "skip")
    output = mapper({"file_name": "b.jpg"})
    assert output["file_name"] not in BAD
    assert output[SKIPPED][0][0] == "b.jpg" and "truncated" in output[SKIPPED][0][1]
    assert mapper({"file_name": "a.jpg"}) == {"file_name": "a.jpg"}


def test_which_one_depends_on_the_name_only():
    """Not on what was read before, in which process."""
    first = training_mapper(read, records(), "skip")
    second = training_mapper(read, records(), "skip")
    for name in "dbaabd":
        second({"file_name": f"{name}.jpg"})
    for name in ("b.jpg", "d.jpg"):
        assert first({"file_name": name}) == second({"file_name": name})


def test_a_set_of_bad_images_ends():
    mapper = training_mapper(read, records("bd"), "skip")
    with pytest.raises(
        ImageError, match=r"^2 images in a row cannot be used, the last one: image "
    ):
        mapper({"file_name": "b.jpg"})


def test_the_one_good_image_is_found():
    """Wherever it is, also where the one to replace would be its own replacement."""
    for name in "bd":
        for dataset in (records("ab"), records("ba"), records("bad"), records("bdbda")):
            output = training_mapper(read, dataset, "skip")({"file_name": f"{name}.jpg"})
            assert output["file_name"] == "a.jpg"


def test_a_folder_of_bad_images_in_a_row(monkeypatch):
    """As of a copy that was broken off: the images beside a bad one are bad too."""
    bad = [f"{i}.jpg" for i in range(500)]
    monkeypatch.setitem(globals(), "BAD", set(bad))
    mapper = training_mapper(read, records(range(1000)), "skip")
    taken = [mapper({"file_name": name})["file_name"] for name in bad[::5]]
    assert not set(taken) & set(bad) and len(set(taken)) > 50


def test_mistakes_in_the_mapper_are_never_skipped():
    mapper = training_mapper(lambda record: record["no such key"], records(), "skip")
    with pytest.raises(KeyError):
        mapper({"file_name": "a.jpg"})


def test_a_data_set_without_a_list_has_nothing_to_take_instead():
    mapper = training_mapper(read, iter(()), "skip")
    with pytest.raises(ImageError):
        mapper({"file_name": "b.jpg"})


@pytest.mark.parametrize("workers", [0, 2])
def test_each_is_told_once_and_counted(caplog, workers):
    dataset = records()
    loader = build_detection_train_loader(
        dataset=dataset,
        mapper=training_mapper(read, dataset, "skip"),
        total_batch_size=3,
        aspect_ratio_grouping=False,
        num_workers=workers,
    )
    counter = SkipCounter(loader, "train.on_bad_image")
    batches = iter(counter)
    for _ in range(8):
        names = [data["file_name"] for data in next(batches)]
        assert len(names) == 3 and not BAD & set(names)
    assert counter.skipped == BAD
    messages = [r.getMessage() for r in caplog.records if "takes its place" in r.getMessage()]
    assert len(messages) == 2
    assert messages[1].endswith("(train.on_bad_image=skip); 2 so far")


def damage(photos, name="2.jpg"):  # noqa: F811
    path = photos[0] / "images" / name
    path.write_bytes(path.read_bytes()[:200])


def test_a_training_that_skips(photos, caplog):  # noqa: F811
    damage(photos)
    run(photos, "train.on_bad_image=skip", "train.log_period=1", "dataloader.evaluator=null")
    assert caplog.text.count("2.jpg cannot be read") == 1
    assert read_metrics(photos[0] / "out")[5][SKIPPED] == 1
    assert (photos[0] / "out" / "model_final.pth").is_file()


def test_a_training_that_does_not(photos):  # noqa: F811
    damage(photos)
    with pytest.raises(UserError, match=r"^image .*2\.jpg cannot be read \(OSError"):
        run(photos)


def test_an_evaluation_never_skips(photos):  # noqa: F811
    run(photos, "train.max_iter=1", "dataloader.evaluator=null")
    damage(photos, "0.jpg")  # the first
    weights = f"train.init_checkpoint={photos[0]}/out/model_final.pth"
    with pytest.raises(UserError, match=r"^image .*0\.jpg cannot be read \(OSError"):
        run(photos, "train.on_bad_image=skip", weights, eval_only=True)


def test_a_yaml_training(photos, caplog):  # noqa: F811
    from iou_balanced.data import register_coco_json

    folder, data = photos
    damage(photos)
    (folder / "a.json").write_text(json.dumps(data))
    name = register_coco_json(
        name=f"yaml_{folder.name}",
        json_file=str(folder / "a.json"),
        image_root=str(folder / "images"),
    )
    cfg = get_cfg()
    add_iou_balanced_config(cfg)
    assert cfg.DATALOADER.ON_BAD_IMAGE == "error"
    cfg.DATASETS.TRAIN, cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS = (name,), 2, 0
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    with pytest.raises(ImageError, match=r"2\.jpg cannot be read"):
        batches = iter(BalancedDefaultTrainer.build_train_loader(cfg))
        for _ in range(6):
            next(batches)
    cfg.DATALOADER.ON_BAD_IMAGE = "skip"
    loader = BalancedDefaultTrainer.build_train_loader(cfg)
    batches = iter(loader)
    for _ in range(6):
        assert len(next(batches)) == 2
    said = [x.getMessage() for x in caplog.records if "DATALOADER.ON_BAD_IMAGE=skip" in x.message]
    assert len(said) == 1 and said[0].endswith("1 so far")
    assert isinstance(training_mapper(read, None, "error"), NamedErrors)

"""tools/train_net.py as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.engine import SimpleTrainer, hooks
from detectron2.evaluation import inference_on_dataset
from omegaconf import OmegaConf

from iou_balanced.engine import UserError, do_test, load_config, main
from iou_balanced.engine.errors import data_errors_as_user_errors
from iou_balanced.engine.train import check_config

from .helpers import BASELINE, ROOT, TINY, make_args, read_metrics, tiny_config, train_net


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    main(make_args(opts=[f"train.output_dir={folder}", "train.max_iter=6"]))
    return folder


def test_what_a_run_leaves_behind(trained):
    for name in ("config.yaml", "log.txt", "metrics.json", "model_final.pth", "model_best.pth"):
        assert (trained / name).stat().st_size > 0, name
    assert list(trained.glob("events.out.tfevents*"))
    assert (trained / "inference/coco_metrics.csv").exists()
    record = read_metrics(trained)
    assert {"bbox/AP", "bbox/AP60", "bbox/AP90", "bbox/AP-3"} <= set(record[max(record)])


def test_eval_only_reproduces_the_metrics(trained, tmp_path):
    opts = [f"train.init_checkpoint={trained}/model_final.pth", f"train.output_dir={tmp_path}"]
    results = main(make_args(opts=opts, eval_only=True))["bbox"]
    recorded = read_metrics(trained)
    recorded = recorded[max(recorded)]
    assert {f"bbox/{k}" for k in results} <= set(recorded)
    for key, value in results.items():
        assert value == pytest.approx(recorded[f"bbox/{key}"], abs=1e-9, nan_ok=True), key
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["checkpoint"].endswith("model_final.pth")
    assert record["iteration"] == 5


def test_the_saved_config_runs(trained, tmp_path):
    opts = [f"train.init_checkpoint={trained}/model_final.pth", f"train.output_dir={tmp_path}"]
    main(make_args(str(trained / "config.yaml"), opts=opts, eval_only=True))


def test_mistakes_are_one_line_without_a_traceback():
    result = train_net(*TINY, "model.cls_loss.etta=2")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "error: unknown key model.cls_loss.etta: model.cls_loss has no 'etta'; did you mean "
        "model.cls_loss.eta?"
    )
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "config, said",
    [
        ("VOC/retinanet_R_50_FPN_1x.py", r"VOC2007.*VOCtrainval_06-Nov-2007\.tar"),
        ("COCO/retinanet_R_50_FPN_1x.py", r"instances_train2017\.json does not exist.*cocodataset"),
    ],
)
def test_a_missing_data_set_is_one_message_that_says_how_to_get_it(
    config, said, tmp_path, monkeypatch
):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    command = [sys.executable, str(ROOT / "tools/train_net.py"), "--config-file"]
    command += [str(ROOT / "configs" / config), "train.device=cpu", f"train.output_dir={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert re.search(f"(?s)error: .*{said}", result.stderr), result.stderr


def test_what_the_data_package_refuses_is_a_user_error(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    cfg = load_config(str(ROOT / "configs/VOC/ssd300.py"), ["train.device=cpu"])
    cfg.datasets.train.years = [2007, 2013]
    with pytest.raises(UserError, match="2013"):
        check_config(cfg)
    monkeypatch.setitem(sys.modules, "cityscapesscripts.helpers", None)  # as if not installed
    monkeypatch.delitem(sys.modules, "cityscapesscripts.helpers.labels", raising=False)
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / "cityscapes" / folder / "train/ulm").mkdir(parents=True)
    stem = tmp_path / "cityscapes/{}/train/ulm/ulm_0_0_{}"
    Path(str(stem).format("leftImg8bit", "leftImg8bit.png")).touch()
    Path(str(stem).format("gtFine", "gtFine_polygons.json")).write_text("{}")
    cfg = load_config(str(ROOT / "configs/Cityscapes/retinanet_R_50_FPN.py"), ["train.device=cpu"])
    with pytest.raises(UserError, match=r"pip install .*cityscapes"):
        check_config(cfg)


def test_other_errors_keep_their_traceback():
    with pytest.raises(ValueError, match="mine") as e, data_errors_as_user_errors():
        raise ValueError("mine")
    assert not isinstance(e.value, UserError)


def test_evaluation_does_not_ask_for_the_training_set():
    cfg = tiny_config()
    cfg.datasets.train = "nowhere_train"
    with pytest.raises(UserError, match="there is no data set 'nowhere_train'"):
        check_config(cfg)
    check_config(cfg, eval_only=True)


def test_the_number_of_classes_is_compared_with_the_data(tmp_path):
    with pytest.raises(UserError, match=r"has 10 classes \(0, 1, 2.*give model\.num_classes=10"):
        main(make_args(opts=[f"train.output_dir={tmp_path}", "model.num_classes=3"]))


def test_a_gpu_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"train\.device=cuda.*give train\.device=cpu"):
        main(make_args(opts=[f"train.output_dir={tmp_path}", "train.device=cuda"]))


def test_amp_and_clipping_from_the_command_line(tmp_path):
    opts = [f"train.output_dir={tmp_path}", "train.amp.enabled=True"]
    main(make_args(opts=[*opts, "train.clip_grad.max_norm=1.0", "train.max_iter=2"]))
    assert read_metrics(tmp_path)[1]["grad_norm"] > 0


def test_a_set_without_annotations_breaks_neither_run_nor_best_checkpoint(tmp_path, datasets_root):
    """As on COCO test-dev: no metric, a file for the server."""
    folder = next(datasets_root.glob("digits_val_4_64px*"))
    content = json.loads((folder / "annotations.json").read_text())
    del content["annotations"]
    (tmp_path / "test.json").write_text(json.dumps(content))
    opts = [
        f"train.output_dir={tmp_path}/run",
        "train.max_iter=4",
        "train.eval_period=2",
        "datasets.test._target_=iou_balanced.data.register_coco_json",
        "datasets.test.name=digits_unannotated",
        f"datasets.test.json_file={tmp_path}/test.json",
        f"datasets.test.image_root={folder}/images",
    ]
    tiny = [o for o in TINY if "datasets.test" not in o]
    args = make_args(BASELINE)
    args.opts = [*tiny, *opts]
    main(args)
    run = tmp_path / "run"
    assert not any("bbox/AP" in r for r in read_metrics(run).values())
    assert (run / "model_final.pth").exists()
    assert not (run / "model_best.pth").exists()
    assert list((run / "inference").glob("*_results.zip"))


def test_detectron2s_own_loop_runs_our_config(tmp_path):
    """The objects that Detectron2's lazyconfig_train_net.py makes of a config, and its trainer."""
    cfg = tiny_config(f"train.output_dir={tmp_path}")
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), optimizer)
    checkpointer = DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer, trainer=trainer)
    trainer.register_hooks([hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier))])
    trainer.train(0, 2)
    checkpointer.save("model_final")
    results = inference_on_dataset(
        model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    )
    assert "AP" in results["bbox"]


def test_several_evaluators(tmp_path):
    """Detectron2 takes a list of them."""
    cfg = tiny_config(f"train.output_dir={tmp_path}")
    node = cfg.dataloader.evaluator
    cfg.dataloader.evaluator = OmegaConf.create([node], flags={"allow_objects": True})
    cfg.dataloader.evaluator[0].dataset_name = "${datasets.test}"
    assert "AP" in do_test(cfg, instantiate(cfg.model))["bbox"]
    assert (tmp_path / "inference/coco_metrics.csv").exists()


def test_an_evaluation_leaves_the_config_of_the_training(trained):
    before = (trained / "config.yaml").read_text()
    opts = [f"train.init_checkpoint={trained}/model_final.pth", f"train.output_dir={trained}"]
    main(make_args(opts=[*opts, "model.test_nms_thresh=0.9"], eval_only=True))
    assert (trained / "config.yaml").read_text() == before
    assert "0.9" in (trained / "config_eval.yaml").read_text()
    assert not (trained / "config.yaml.1").exists()

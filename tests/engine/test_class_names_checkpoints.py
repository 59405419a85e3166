"""Class names in checkpoint files, and a resume that compares them."""

import inspect
import json
import math
import re

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.modeling.meta_arch.retinanet import RetinaNet

from iou_balanced.engine import UserError, main
from iou_balanced.engine.checkpoint import Checkpointer
from iou_balanced.engine.class_names import ModelClasses

from ..processes import run_in_two_processes
from .colors import CONFIG, LISTS, ORDER, OTHER, Colors, args_for, coco_set
from .helpers import ROOT, tiny_config, train_net


def test_every_checkpoint_has_the_names(colors_run):
    out, _ = colors_run
    files = sorted(out.glob("*.pth"))
    periodic = ["model_0000009.pth", "model_0000019.pth"]
    assert [f.name for f in files] == [*periodic, "model_best.pth", "model_final.pth"]
    for file in files:
        content = torch.load(file, weights_only=True)
        assert content["class_names"] == ORDER and type(content["class_names"]) is list
        model = Colors(num_classes=3)
        rest = DetectionCheckpointer(model).load(str(file))
        assert torch.equal(model.cls_score.weight, content["model"]["cls_score.weight"])
        assert "iteration" in rest


def test_detectron2s_own_detector_loads_the_file(tmp_path, caplog):
    cfg = tiny_config().model
    model = instantiate(cfg)
    Checkpointer(model, str(tmp_path), classes=ModelClasses(list("0123456789"), "")).save("ours")
    known = inspect.signature(RetinaNet.__init__).parameters
    kept = {k: v for k, v in cfg.items() if k in known}
    stock = RetinaNet(**{k: instantiate(v) for k, v in kept.items()})
    checkpointer = DetectionCheckpointer(stock)
    checkpointer.load(str(tmp_path / "ours.pth"))
    assert "not found" not in caplog.text and "not used" not in caplog.text
    for name, value in stock.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def stamps(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_resume_with_another_order_is_refused(colors_run, tmp_path):
    out, data = colors_run
    before = stamps(out)
    opts = (*coco_set(tmp_path, OTHER, "train"), *data[4:], f"train.output_dir={out}")
    with pytest.raises(UserError, match=f"model_final.pth is of a run with the classes {LISTS}"):
        main(args_for(*opts, resume=True))
    assert stamps(out) == before
    # So does the checkpointer, before it changes the weights.
    model = Colors(num_classes=3)
    weights = model.cls_score.weight.detach().clone()
    checkpointer = Checkpointer(model, str(out), classes=ModelClasses(OTHER, "data set 'x'"))
    with pytest.raises(UserError, match=f"{LISTS}: a resumed run needs the same"):
        checkpointer.resume_or_load("", resume=True)
    assert torch.equal(model.cls_score.weight, weights)


@pytest.mark.parametrize("names", [True, False])
def test_a_resume_with_the_same(tmp_path, log, names):
    out = tmp_path / "out"
    data = [*coco_set(tmp_path, ORDER, "train"), *coco_set(tmp_path, OTHER, "test")]
    opts = [*data, f"train.output_dir={out}", "train.eval_period=0"]
    main(args_for(*opts, "train.max_iter=1"))
    if not names:  # as of a run before there were any
        content = torch.load(out / "model_final.pth", weights_only=True)
        del content["class_names"]
        torch.save(content, out / "model_final.pth")
    main(args_for(*opts, "train.max_iter=2", resume=True))
    content = torch.load(out / "model_final.pth", weights_only=True)
    assert content["iteration"] == 1 and content["class_names"] == ORDER
    said = "does not name the classes of its classifier: they are taken to be those of data set"
    assert (said in log()) is not names


def _two_processes(rank):
    """What each process says: of a folder that only the second one has, and of names likewise."""
    from iou_balanced.engine.class_names import classes_of_evaluated, on_every_process

    said = []
    try:
        with on_every_process():
            if rank == 1:
                raise UserError("of the second")
    except UserError as e:
        said.append(str(e))
    training = ModelClasses(["a"], "there") if rank == 0 else None
    return [*said, classes_of_evaluated(None, "file", training).names]


def test_every_process_says_the_same(tmp_path):
    assert run_in_two_processes(_two_processes, tmp_path) == [["of the second", ["a"]]] * 2


def test_the_command(colors_run, tmp_path, monkeypatch):
    """Evaluation without the training set, and a resume that is refused in one line."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'projects'}")
    out, data = colors_run
    evaluation = (f"train.init_checkpoint={out}/model_final.pth", f"train.output_dir={tmp_path}")
    subset = coco_set(tmp_path, ["blue", "red"], "test")
    result = train_net("--eval-only", "datasets.train=none", *subset, *evaluation, config=CONFIG)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["bbox/AP"] == 100 and math.isnan(metrics["bbox/AP-green"])

    other = (*coco_set(tmp_path, OTHER, "train"), *data[4:], f"train.output_dir={out}")
    result = train_net("--resume", *other, config=CONFIG)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert re.search(f"error: .*is of a run with the classes {LISTS}", result.stderr)

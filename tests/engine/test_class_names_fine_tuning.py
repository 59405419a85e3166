"""Fine-tuning from a checkpoint that names its classes, or does not."""

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from iou_balanced.engine import UserError, main
from iou_balanced.engine.checkpoint import Checkpointer, load_initial_weights
from iou_balanced.engine.class_names import ModelClasses

from .colors import ORDER, OTHER, Colors, args_for, coco_set, knows, save
from .helpers import tiny_config

KEYS = ("cls_score.weight", "cls_score.bias")


def fine_tune(tmp_path, file, classes, *opts):
    """(state, AP of each class) after a training with learning rate 0."""
    data = [*coco_set(tmp_path, classes, "train"), *coco_set(tmp_path, classes, "test")]
    out = tmp_path / "out"
    opts = (f"train.init_checkpoint={file}", f"train.output_dir={out}", *opts)
    opts += (f"model.num_classes={len(classes)}", "optimizer.lr=0", "train.max_iter=1")
    main(args_for(*data, "train.eval_period=1", *opts))
    content = torch.load(out / "model_final.pth", weights_only=True)
    assert content["class_names"] == classes
    return content["model"]


@pytest.mark.parametrize(
    "classes",
    [
        OTHER,  # another order
        ["blue", "red"],  # a subset
        ["black", "blue", "green", "red"],  # a superset
        ["black", "green"],  # an overlap
    ],
)
def test_rows_go_to_the_classes_of_their_names(tmp_path, log, classes):
    file = save(tmp_path / "w.pth", ORDER)
    state, theirs = fine_tune(tmp_path, file, classes), knows(ORDER).state_dict()
    for key in KEYS:
        for i, name in enumerate(classes):
            if name in ORDER:
                assert torch.equal(state[key][i], theirs[key][ORDER.index(name)]), name
            else:
                assert (state[key][i].abs() < 1).all()  # fresh, where the file's are tens
    assert torch.equal(state["bbox_pred.weight"], torch.load(file)["model"]["bbox_pred.weight"])
    shared = [name for name in classes if name in ORDER]
    said = (
        f"the class list in {file}: in cls_score.weight, cls_score.bias, the rows of {len(shared)}"
    )
    assert said in log()
    assert all(f"{n} ({classes.index(n)} from {ORDER.index(n)})" in log() for n in shared)
    assert ("Starting fresh: black." in log()) is ("black" in classes)


@pytest.mark.parametrize("opts", [(), ("train.init_classes=[red,green,blue]",)])
def test_the_same_classes(tmp_path, log, opts):
    state = fine_tune(tmp_path, save(tmp_path / "w.pth", ORDER), ORDER, *opts)
    assert all(torch.equal(state[key], knows(ORDER).state_dict()[key]) for key in KEYS)
    assert "the rows of" not in log() or opts


def test_another_spelling(tmp_path, log):
    file, classes = save(tmp_path / "w.pth", ORDER), ["red", "Green", "blue"]
    message = "or blanks only: 'green' and 'Green'.* Or give train.init_classes=False, which takes"
    with pytest.raises(UserError, match=message):
        fine_tune(tmp_path, file, classes)
    assert not list((tmp_path / "out").glob("*.pth"))
    state = fine_tune(tmp_path, file, classes, "train.init_classes=False")
    assert all(torch.equal(state[key], knows(ORDER).state_dict()[key]) for key in KEYS)
    assert "init_classes=False: rows of the classifier in" in log()


def test_init_classes_that_the_file_contradicts(tmp_path):
    message = (
        r"train\.init_classes has the classes 'blue', 'red', 'green', but .*w\.pth says that it "
        r"was trained on 'red', 'green', 'blue': leave train\.init_classes out"
    )
    with pytest.raises(UserError, match=message):
        fine_tune(
            tmp_path,
            save(tmp_path / "w.pth", ORDER),
            ORDER,
            "train.init_classes=[blue,red,green]",
        )


def test_a_file_without_names(tmp_path, log):
    file = save(tmp_path / "w.pth", OTHER, names=False)
    state = fine_tune(tmp_path, file, ORDER)
    assert all(torch.equal(state[key], knows(OTHER).state_dict()[key]) for key in KEYS)
    said = "does not name the classes of its classifier: they are taken to be those of data set"
    assert log().count(said) == 1 and "in the same order; train.init_classes names them" in log()


@pytest.mark.parametrize("case", ["backbone", "other number", "init_classes", "init_classes=False"])
def test_a_file_without_names_of_which_there_is_nothing_to_say(tmp_path, log, case):
    file = save(tmp_path / "w.pth", ORDER, names=False)
    opts = {"init_classes": "[red,green,blue]", "init_classes=False": "False"}.get(case)
    if case == "backbone":  # ImageNet weights have no classifier that would fit
        torch.save({"model": {"bbox_pred.weight": torch.zeros(4, 3)}}, file)
    classes = ORDER[:2] if case == "other number" else ORDER
    fine_tune(tmp_path, file, classes, *([f"train.init_classes={opts}"] if opts else []))
    assert "does not name" not in log()


class Unknown(nn.Module):
    """A detector whose classifier has another name."""

    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(3, 3)


def test_a_classifier_that_is_not_found(tmp_path, log):
    model = Unknown()
    file = str(tmp_path / "w.pth")
    torch.save({"model": model.state_dict(), "class_names": ORDER}, file)
    other = Unknown()
    before = other.classify.weight.detach().clone()
    classes = ModelClasses(OTHER, "data set 'x'")
    message = (
        "the class list in .*w.pth: the checkpoint's classes are 'red', 'green', 'blue', the "
        r"model's 'blue', 'red', 'green': .* no classifier that could be mapped: .* Give "
        r"train\.init_classes=False, which leaves the rows"
    )
    with pytest.raises(UserError, match=message):
        Checkpointer(other, classes=classes).load(file, checkpointables=[])
    assert torch.equal(other.classify.weight, before)
    Checkpointer(other, classes=classes, init_classes=False).load(file, checkpointables=[])
    assert torch.equal(other.classify.weight, model.classify.weight)


@pytest.mark.parametrize("rows", [2, 4])
def test_a_head_of_another_kind_starts_fresh(tmp_path, log, rows):
    """Its layers have the same names, and perhaps by chance the shape of the model's."""
    model = Colors(num_classes=2)
    theirs = {**model.state_dict(), "cls_score.weight": torch.ones(rows, 3)}
    theirs |= {"cls_score.bias": torch.ones(rows), "bbox_pred.bias": torch.ones(4)}
    file = str(tmp_path / "w.pth")
    torch.save({"model": theirs, "class_names": ORDER}, file)
    before = {key: model.state_dict()[key].clone() for key in KEYS}
    classes = ModelClasses(["blue", "red"], "data set 'x'")
    Checkpointer(model, classes=classes).load(file, checkpointables=[])
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in KEYS)
    assert torch.equal(model.bbox_pred.bias, torch.ones(4))
    assert f"are not loaded: cls_score.weight ({rows}, 3), cls_score.bias ({rows},)" in log()
    # Whoever says by hand which classes they are has to be right.
    checkpointer = Checkpointer(model, classes=classes, init_classes=ORDER)
    with pytest.raises(UserError, match=rf"shape \({rows}, 3\) .* but train\.init_classes has 3"):
        checkpointer.load(file, checkpointables=[])


def test_init_classes_for_a_training_set_of_unknown_classes():
    cfg = tiny_config("train.init_checkpoint=none.pth", "train.init_classes=[a,b]")
    checkpointer = Checkpointer(instantiate(cfg.model))
    with pytest.raises(UserError, match="init_classes needs the names of the training set's class"):
        load_initial_weights(checkpointer, cfg)

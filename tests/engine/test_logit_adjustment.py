"""`train.logit_adjustment` in evaluation and prediction."""

import json

import pytest
import torch

from iou_balanced import Predictor
from iou_balanced.data import ClassCounts
from iou_balanced.engine import UserError, main
from iou_balanced.modeling import PriorAdjustment

from .helpers import BASELINE, TINY, make_args

PRIOR = "train.logit_adjustment._target_=iou_balanced.modeling.PriorAdjustment"
FRACAL = "train.logit_adjustment._target_=iou_balanced.modeling.FractalAdjustment"
LOW = "model.test_score_thresh=0.0"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, weights) of a training, one iteration long, whose counts are written by hand."""
    folder = tmp_path_factory.mktemp("run") / "out"
    opts = ["train.max_iter=1", f"train.output_dir={folder}"]
    main(make_args(BASELINE, opts=opts))
    counts = ClassCounts.load(folder / "class_counts.json")
    assert counts.fractal_dimensions is not None
    names = counts.class_names
    many = [50 if k % 2 else 5 for k in range(len(names))]
    ClassCounts(
        names, many, many, num_images=60, fractal_dimensions=[1.0 + (k % 2) for k in range(10)]
    ).save(folder / "class_counts.json")
    return folder, folder / "model_final.pth"


def evaluate(run, out, *opts):
    weights = f"train.init_checkpoint={run[1]}"
    main(make_args(BASELINE, eval_only=True, opts=[weights, f"train.output_dir={out}", LOW, *opts]))
    with open(out / "inference" / "coco_instances_results.json") as file:
        return json.load(file)


@pytest.mark.parametrize("override", [PRIOR, FRACAL])
def test_evaluation(run, tmp_path, override, log):
    plain = evaluate(run, tmp_path / "plain")
    adjusted = evaluate(run, tmp_path / "adjusted", override)
    assert plain and adjusted and plain != adjusted
    assert f"Scores are adjusted by {override.rpartition('.')[-1]}" in log()


def test_tau_0_changes_nothing_and_prediction_is_as_evaluation(run, tmp_path):
    config = [*TINY, LOW]
    image = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8).numpy()

    def scores(*overrides, **kwargs):
        predictor = Predictor(
            BASELINE, run[1], device="cpu", overrides=[*config, *overrides], **kwargs
        )
        found = predictor(image)["instances"]
        return found.scores, found.pred_classes

    plain = scores()
    torch.testing.assert_close(scores(PRIOR, "train.logit_adjustment.tau=0"), plain)
    adjusted = scores(PRIOR, "train.logit_adjustment.tau=2")
    assert not torch.allclose(adjusted[0], plain[0])
    torch.testing.assert_close(scores(logit_adjustment=PriorAdjustment(tau=2.0)), adjusted)
    # Rare classes, of even numbers here, come out more often among the best.
    even = [(x[1][:50] % 2 == 0).float().mean() for x in (adjusted, plain)]
    assert even[0] > even[1]


def test_counts_that_are_missing_or_of_other_classes(run, tmp_path):
    moved = tmp_path / "elsewhere" / "model.pth"
    moved.parent.mkdir()
    moved.write_bytes(run[1].read_bytes())
    opts = [f"train.init_checkpoint={moved}", f"train.output_dir={tmp_path / 'out'}", PRIOR]
    with pytest.raises(
        UserError,
        match=r"train\.logit_adjustment needs .*no class_counts\.json in "
        r".*elsewhere or .*out: give train\.logit_adjustment\.class_counts=FILE",
    ):
        main(make_args(BASELINE, eval_only=True, opts=opts))
    other = ClassCounts(("a", "b"), (3, 1), (3, 1), num_images=3).save(tmp_path / "other.json")
    key = f"train.logit_adjustment.class_counts={other}"
    with pytest.raises(UserError, match=r"train\.logit_adjustment: .*other\.json to have the 10"):
        main(make_args(BASELINE, eval_only=True, opts=[*opts, key]))
    key = f"train.logit_adjustment.class_counts={tmp_path / 'none.json'}"
    with pytest.raises(UserError, match=r"train\.logit_adjustment: .*none\.json"):
        main(make_args(BASELINE, eval_only=True, opts=[*opts, key]))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["train.logit_adjustment=prior"], r"train\.logit_adjustment=prior: give a call"),
        ([PRIOR, "train.logit_adjustment.tau=-1"], r"train\.logit_adjustment: .*`tau`"),
        (
            ["train.logit_adjustment._target_=torch.nn.Identity"],
            r"train\.logit_adjustment has to be a LogitAdjustment.*Identity",
        ),
    ],
)
def test_what_is_no_adjustment(run, tmp_path, opts, message):
    weights = [f"train.init_checkpoint={run[1]}", f"train.output_dir={tmp_path}"]
    with pytest.raises(UserError, match=message):
        main(make_args(BASELINE, eval_only=True, opts=[*weights, *opts]))


def test_a_training_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"train\.logit_adjustment is for a trained model"):
        main(make_args(BASELINE, opts=[PRIOR, f"train.output_dir={tmp_path}"]))

"""A run that is broken off and resumed ends as one that was not, to the last bit."""

import copy

import pytest
from detectron2.engine import defaults
from detectron2.utils.env import seed_all_rng

from iou_balanced.engine import main
from iou_balanced.engine.trainer import Trainer

from .helpers import BASELINE, CONFIG, make_args
from .runs import DIGITS, differing, records, scalars, shapes_set

COMMON = [
    "train.max_iter=5",
    "train.checkpointer.period=2",
    "train.log_period=3",
    "train.seed=3",
    "model.box_loss.measure_iterations=4",
    "model.box_loss.weight=auto",
    "dataloader.train.num_workers=2",
]
REPEATED = """
from detectron2.config import LazyCall as L
from detectron2.data.samplers import RepeatFactorTrainingSampler as Sampler
from iou_balanced.data import register_coco_json
from iou_balanced.engine import load_config

cfg = load_config({config!r}, [])
dataloader, datasets, lr_multiplier, model, optimizer, train = (
    cfg[key] for key in ("dataloader", "datasets", "lr_multiplier", "model", "optimizer", "train")
)
datasets.train = L(register_coco_json)(
    name={folder!r}, json_file={json_file!r}, image_root={folder!r}
)
dataloader.train.aspect_ratio_grouping = True
dataloader.train.sampler = L(Sampler)(
    repeat_factors=L(Sampler.repeat_factors_from_category_frequency)(
        dataset_dicts="${{dataloader.train.dataset}}", repeat_thresh=0.15
    )
)
"""
# What is particular, and at which iterations it is broken off.
CASES = {
    "workers, evaluations": (CONFIG, ["train.eval_period=2"], [3]),
    "no seed, broken off twice": (CONFIG, ["train.seed=-1"], [2, 3]),
    "accumulation, bfloat16": (
        CONFIG,
        ["train.accumulation_steps=2", "train.amp.enabled=True", "dataloader.train.num_workers=1"],
        [3],
    ),
    "proposals are drawn": (str(DIGITS / "faster_rcnn_small.py"), [], [3]),
    "repeat factors, two shapes": (BASELINE, [], [3]),
}
# The baseline has no w_loc.
PLAIN = [opt for opt in COMMON if "box_loss" not in opt]


def break_off_at(monkeypatch, iterations):
    """Each is an exception in the middle of an iteration, which leaves what a kill leaves."""
    run_step, left = Trainer.run_step, list(iterations)

    def step(self):
        run_step(self)
        if left and self.iter == left[0]:
            left.pop(0)
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run_step", step)


def run(config, opts, folder, breaks=(), monkeypatch=None):
    args = make_args(config, opts=[*opts, f"train.output_dir={folder}"])
    if config.endswith("repeated.py"):  # it has no digits
        args.opts = [opt for opt in args.opts if not opt.startswith("datasets.train")]
    if breaks:
        break_off_at(monkeypatch, breaks)
    for _ in breaks:
        with pytest.raises(KeyboardInterrupt):
            main(copy.copy(args))
        args.resume = True
    main(args)


@pytest.fixture
def drawn_seeds(monkeypatch):
    """Without train.seed, Detectron2 seeds at random: here the same for the first start of each."""
    real, folders = seed_all_rng, set()

    def seed(value=None):
        known = [len(list(folder.glob("*.pth"))) for folder in folders]
        real(sum(known) if value is None else value)

    monkeypatch.setattr(defaults, "seed_all_rng", seed)
    return folders


@pytest.mark.parametrize("case", CASES)
def test_to_the_last_bit(case, tmp_path, monkeypatch, drawn_seeds):
    drawn_seeds.add(tmp_path / "broken")
    config, opts, breaks = CASES[case]
    opts = [*(COMMON if config == CONFIG else PLAIN), *opts]
    if "repeat factors" in case:
        json_file, config = shapes_set(tmp_path), str(tmp_path / "repeated.py")
        text = REPEATED.format(config=BASELINE, json_file=str(json_file), folder=str(tmp_path))
        (tmp_path / "repeated.py").write_text(text)
    run(config, opts, tmp_path / "whole")
    run(config, opts, tmp_path / "broken", breaks, monkeypatch)
    assert differing(tmp_path / "whole", tmp_path / "broken") == []
    whole, broken = records(tmp_path / "whole"), records(tmp_path / "broken")
    assert whole == broken and len(whole) == len({record["iteration"] for record in whole})
    assert scalars(tmp_path / "whole", "lr") == scalars(tmp_path / "broken", "lr")

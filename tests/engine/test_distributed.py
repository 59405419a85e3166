"""Two CPU processes over GLOO give the gradients of one with the whole batch."""

import os
import subprocess
import sys

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from iou_balanced.engine import UserError, launch
from iou_balanced.engine.train import wrap_distributed

from ..processes import START_METHOD, run_in_two_processes
from .helpers import TINY, load_checkpoint, read_metrics, tiny_config, train_net

# Positives of all images but the last; the process with it alone has none.
NUM_BOXES = (3, 1, 4, 0)
ITERATIONS = 2


def make_batch():
    generator = torch.Generator().manual_seed(0)
    batch = []
    for number in NUM_BOXES:
        corner = torch.rand(number, 2, generator=generator) * 30
        size = 10 + torch.rand(number, 2, generator=generator) * 20
        instances = Instances((64, 64))
        instances.gt_boxes = Boxes(torch.cat([corner, corner + size], dim=1))
        instances.gt_classes = torch.randint(0, 10, (number,), generator=generator)
        image = torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "instances": instances})
    return batch


def gradients(images, overrides):
    """The gradient of the second iteration, when the moving average is under way."""
    cfg = tiny_config(*overrides)
    torch.manual_seed(0)
    model = instantiate(cfg.model).train()
    # BatchNorm of one process sees its own images only, which is no matter of the losses.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    ddp = wrap_distributed(model, cfg)
    with EventStorage():
        for _ in range(ITERATIONS):
            model.zero_grad()
            sum(ddp(images).values()).backward()
    return {name: p.grad for name, p in model.named_parameters()}


CASES = {
    "balanced": [],
    "auto": ["model.box_loss.weight=auto", "model.box_loss.measure_iterations=1"],
    "auto, being measured": ["model.box_loss.weight=auto"],
    "normalize": ["model.box_loss.weight=1.0", "model.box_loss.normalize=True"],
    "plain": ["model.cls_loss.eta=0", "model.box_loss.lam=0"],
    "Eq. 4 by process": ["model.cls_loss.across_processes=False"],
    "w_loc by process": [
        "model.box_loss.weight=auto",
        "model.box_loss.measure_iterations=1",
        "model.box_loss.across_processes=False",
    ],
    "normaliser by process": ["model.loss_normalizer.across_processes=False"],
}
# Two images each; and in the last case all objects in one process.
SPLITS = {case: ((0, 1), (2, 3)) for case in CASES} | {"without positives": ((0, 1, 2), (3,))}


def work(rank):
    """Every case in one pair of processes, because a process takes long to start."""
    results = {}
    for case, split in SPLITS.items():
        images = [make_batch()[i] for i in split[rank]]
        results[case] = gradients(images, CASES.get(case, []))
    return results


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    return run_in_two_processes(work, folder, START_METHOD)[1]


def difference(two, case) -> float:
    """Largest difference of any gradient, as a share of the largest entry of that gradient."""
    one = gradients(make_batch(), CASES[case])
    assert set(one) == set(two[case])
    return max(
        float((two[case][name] - g).abs().max() / g.abs().max().clamp(min=1e-12))
        for name, g in one.items()
    )


@pytest.mark.parametrize("case", ["balanced", "auto", "auto, being measured", "normalize", "plain"])
def test_two_processes_give_the_gradients_of_one(two_processes, case):
    assert difference(two_processes, case) < 1e-3


@pytest.mark.parametrize("case", ["Eq. 4 by process", "w_loc by process", "normaliser by process"])
def test_each_sum_by_process_gives_other_gradients(two_processes, case):
    """Without the sums over processes the test above would fail: it can."""
    assert difference(two_processes, case) > 0.01


def test_a_process_without_positives_does_not_hang(two_processes):
    # Unequal shares are no mean over images: only that it ends, with finite gradients, counts.
    assert all(g.isfinite().all() for g in two_processes["without positives"].values())


@pytest.mark.parametrize("start", ["flags", "torchrun"])
def test_train_net_with_two_processes(tmp_path, start):
    """From the command line to metrics: one evaluation, one checkpoint, one log."""
    launcher, flags = [sys.executable], ["--num-gpus", "2", "--dist-url", "auto"]
    if start == "torchrun":
        launcher += ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        flags = []
    result = train_net(
        *flags, *TINY, f"train.output_dir={tmp_path}", "train.max_iter=2", launcher=launcher
    )
    assert result.returncode == 0, result.stderr[-3000:]
    records = read_metrics(tmp_path)
    assert "bbox/AP" in records[max(records)]
    assert load_checkpoint(tmp_path)["trainer"]["iteration"] == 1
    assert (tmp_path / "log.txt.rank1").exists()


def test_an_environment_that_does_not_fit_is_an_error(monkeypatch):
    for key, value in {
        "RANK": "0",
        "WORLD_SIZE": "3",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UserError, match="WORLD_SIZE=3, LOCAL_WORLD_SIZE=2"):
        launch(print)


def test_several_machines_need_an_address():
    with pytest.raises(UserError, match="--dist-url auto works on one machine only"):
        launch(print, num_gpus=2, num_machines=2)


def test_a_loss_that_is_not_finite_ends_all_processes(tmp_path):
    result = train_net(
        "--num-gpus", "2", "--dist-url", "auto", *TINY, f"train.output_dir={tmp_path}",
        "optimizer.lr=1e30", "train.max_iter=20", "lr_multiplier.warmup_factor=1.0",
        launcher=[sys.executable],
    )  # fmt: skip
    assert result.returncode != 0
    assert "Images of this process" in result.stderr
    assert subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True).returncode == 1
    assert not os.path.exists(tmp_path / "model_final.pth")


def test_a_mistake_found_by_a_process_is_one_line(tmp_path):
    result = train_net(
        "--num-gpus", "2", "--dist-url", "auto", *TINY, "model.num_classes=3",
        f"train.output_dir={tmp_path}",
    )  # fmt: skip
    assert result.returncode == 1
    assert "error: data set 'digits_train_8_64px_s0' (dataloader.train" in result.stderr
    assert "has 10 classes" in result.stderr
    assert "Traceback" not in result.stderr


def test_no_gpus_is_one_process(capsys):
    launch(print, num_gpus=0, args=("here",))
    assert capsys.readouterr().out == "here\n"


def test_a_batch_that_cannot_be_shared_is_an_error(tmp_path):
    result = train_net(
        "--num-gpus", "2", "--dist-url", "auto", *TINY, f"train.output_dir={tmp_path}",
        "dataloader.train.total_batch_size=3",
    )  # fmt: skip
    assert "total_batch_size=3 cannot be shared by 2 processes" in result.stderr

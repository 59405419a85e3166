"""Two processes give the gradients of one with the whole batch, class weights and all."""

import pytest
import torch
from detectron2.config import LazyCall as L
from torch import nn

from iou_balanced import balance
from iou_balanced.losses import BalanceOriented

from ..processes import run_in_two_processes
from .centernet.test_centernet import small_centernet
from .detector_mixin import BOXES, CLASSES, build, gradients, make_input, small_retinanet
from .detector_mixin import training_step as step
from .test_fcos import small_fcos

MODELS = {"retinanet": small_retinanet, "fcos": small_fcos, "centernet": small_centernet}
# The objects of each process's image; those of an image may be none.
BATCHES = {
    "both": [(BOXES, CLASSES), (BOXES[:2], [2, 2])],
    "first has none": [([], []), (BOXES, CLASSES)],
    "none": [([], []), ([], [])],
}


def run(name, batch, ranks):
    weights = L(BalanceOriented)(
        eta=0.5, count_over="batch", schedule=None, class_counts=[60, 30, 10]
    )
    config = balance(MODELS[name](), eta=1.5, lam=1.5, weight=1.0, class_balance=weights)
    model = build(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # its statistics would be those of a process
    images = []
    for rank in ranks:
        torch.manual_seed(rank)
        images.append(make_input(*BATCHES[batch][rank]))
    losses = step(model, images)
    return {key: loss.item() for key, loss in losses.items()}, gradients(model)


def work(rank):
    return {(name, batch): run(name, batch, [rank]) for name in MODELS for batch in BATCHES}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_in_two_processes(work, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", MODELS)
def test_two_processes_equal_one_with_the_whole_batch(results, name, batch):
    losses, grads = run(name, batch, [0, 1])
    parts = [result[name, batch] for result in results]
    # Data-parallel training averages the processes' gradients.
    for key, loss in losses.items():
        assert sum(part[0][key] for part in parts) / 2 == pytest.approx(loss, rel=1e-5), key
    for key, grad in grads.items():
        mean = (parts[0][1][key] + parts[1][1][key]) / 2
        torch.testing.assert_close(mean, grad, rtol=1e-4, atol=1e-6, msg=key)

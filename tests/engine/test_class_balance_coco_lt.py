"""The rows of "Balance-Oriented Focal Loss", Table 12: what overrides make of COCO-LT's files."""

import pytest
import torch
from detectron2.config import instantiate

from iou_balanced.engine import load_config
from iou_balanced.losses import BalanceOriented, ClassBalanced, Equalization
from iou_balanced.modeling import CenterNet

from .helpers import ROOT
from .test_class_balance import CB, ROWS

K = 80
# Ten frequent classes and two kinds of rare ones. Of 9,950 images that show a class, summed over
# the classes, 0.5% are those of the last ten and 9.5% those of the last seventy, the tail: the
# nearest to 8.67%.
IMAGES = [900] * 10 + [15] * 60 + [5] * 10
INSTANCES = [9000] * 10 + [30] * 60 + [10] * 10
TAIL = torch.tensor(IMAGES) < 900
# Eq. 5: 91,900 instances of 80 classes.
ALPHA = 91900 / (K * torch.tensor(INSTANCES).double())
# Eq. 2 with beta 0.9999, to the sum K.
EFFECTIVE = 1 / (1 - 0.9999 ** torch.tensor(INSTANCES).double())
EFFECTIVE *= K / EFFECTIVE.sum()
IN_IMAGES = [torch.tensor([0, 75, 75]), torch.tensor([0, 12])]

detectors = pytest.mark.parametrize("detector", ["centernet_MNV2_140e", "fcos_R_50_FPN_1x"])


def overrides_of(row):
    """Of the record of a row, or of a variant."""
    base, overrides = ROWS[row]
    assert base == "bofl"
    return overrides


def load(detector, overrides=()):
    """The config, and its class balance in the last iteration."""
    cfg = load_config(str(ROOT / f"configs/COCO_LT/{detector}_bofl.py"), list(overrides))
    class_balance = instantiate(cfg.model.class_balance)
    class_balance.set_class_counts(INSTANCES, IMAGES)
    class_balance.set_iteration(cfg.train.max_iter - 1, cfg.train.max_iter)
    assert class_balance.num_classes == cfg.model.num_classes == K
    return cfg, class_balance


def element_weights(cfg, class_balance):
    """(3, K) weights in the loss: rows of class 0, of class 12, and of background."""
    labels = [0, 12, K]
    cls_loss, class_weight = instantiate(cfg.model.cls_loss), class_balance(IN_IMAGES, IN_IMAGES)
    if cfg.model._target_ is CenterNet:  # cells of a heat map
        target = torch.zeros(1, K, 1, 3)
        for i, label in enumerate(labels[:2]):
            target[0, label, 0, i] = 1
    else:
        target = torch.tensor([labels])
    gradients = []
    for weight in (None, class_weight):
        logits = torch.linspace(-2, 2, 3 * K).view(1, 3, K).requires_grad_()
        pred = logits.transpose(1, 2)[:, :, None] if target.dim() == 4 else logits
        gradients.append(torch.autograd.grad(cls_loss(pred, target, class_weight=weight), logits))
    (plain,), (weighted,) = gradients
    assert (plain != 0).all()
    return (weighted / plain)[0]


@detectors
@pytest.mark.parametrize(
    ("row", "background"),
    [("bofl/10/eql", 1.0), ("bofl/12/eql_bg_50", 0.5)],
    ids=["EQL", "bg. 50%"],
)
def test_equalization(detector, row, background):
    """The file's intensity of 5% is BOFL's alone: the tail is not pushed by other classes at all.

    Not by positives of other classes; by background with all its weight, or half of it.
    """
    cfg, class_balance = load(detector, overrides_of(row))
    assert type(class_balance) is Equalization and class_balance.tail_ratio == 0.0867
    assert "intensity" not in cfg.model.class_balance and class_balance.schedule is None
    expected = torch.ones(3, K)
    expected[:2, TAIL] = 0
    expected[1, 12] = 1  # its own
    expected[2, TAIL] = background
    torch.testing.assert_close(element_weights(cfg, class_balance), expected)


@detectors
@pytest.mark.parametrize("intensity", [0.05, 1.0])
def test_balance_oriented(detector, intensity):
    """Ours (intensity 5%), which the file is, and Ours: what the docs say of the full weights."""
    overrides = [] if intensity == 0.05 else [f"{CB}.intensity=1"]
    class_balance = load(detector, overrides)[1]
    assert type(class_balance) is BalanceOriented and class_balance.intensity == intensity
    weights = class_balance(IN_IMAGES, IN_IMAGES)
    counts, eta = torch.zeros(2, K), 0.8  # by image
    counts[0, 0], counts[0, 75], counts[1, 0], counts[1, 12] = 1, 2, 1, 1
    if detector.startswith("fcos"):  # in the process's images together
        counts, eta = counts.sum(dim=0).expand(2, K), 0.999
    expected = (1 + intensity * (ALPHA - 1)) * eta ** counts.double()
    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=1e-5)
    # An instance of the rarest classes has 115 times the average weight, or 6.7 times.
    assert weights[1, 79].item() == pytest.approx(1 + intensity * 113.875)


@detectors
@pytest.mark.parametrize(
    ("row", "alpha", "per_sample"),
    [
        ("bofl/10/cbl", EFFECTIVE, True),
        ("bofl/10/cbl_linear", EFFECTIVE, True),
        ("bofl/10/cbl_approx", ALPHA, True),
        ("bofl/10/cbl_class_wise", ALPHA, False),
    ],
)
def test_class_balanced(row, alpha, per_sample, detector):
    """Not in Table 12: Table 10's rows. They have an intensity too, which is set to 1 for them."""
    cfg, class_balance = load(detector, [*overrides_of(row), f"{CB}.intensity=1"])
    assert type(class_balance) is ClassBalanced
    expected = torch.ones(3, K).double() if per_sample else alpha.expand(3, K).clone()
    if per_sample:
        expected[0], expected[1] = alpha[0], alpha[12]
    weights = element_weights(cfg, class_balance)
    torch.testing.assert_close(weights, expected.float())


def test_the_files_are_the_row_with_the_intensity():
    overrides = overrides_of("intensity 5%")
    for detector in ("centernet_MNV2_140e", "fcos_R_50_FPN_1x"):
        cfg, _ = load(detector)
        assert [f"{CB}.intensity={cfg.model.class_balance.intensity}"] == overrides
        other = load_config(str(ROOT / f"configs/COCO/{detector}_bofl.py"), [])
        assert other.model.class_balance.intensity == 1  # COCO-LT's file changed its own

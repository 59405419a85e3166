"""Scores of trained detectors adjusted by the frequencies of the classes."""

import decimal
import math

import pytest
import torch
from torch import nn

from iou_balanced import balance
from iou_balanced.data import ClassCounts
from iou_balanced.modeling import FractalAdjustment, PriorAdjustment, adjust_logits

from .centernet.test_centernet import small_centernet
from .detector_mixin import build, make_input, small_retinanet, training_step
from .foveabox.foveabox_models import small_foveabox
from .rcnn.rcnn_models import small_cascade_mask_rcnn, small_faster_rcnn
from .ssd.ssd_models import small_ssd
from .test_fcos import small_fcos

COUNTS = ClassCounts(
    ("a", "b", "c"), (90, 9, 1), (50, 9, 1), num_images=100, fractal_dimensions=(1.8, 1.2, 1.0)
)


def adjustment(kind=PriorAdjustment, counts=COUNTS, **kwargs):
    made = kind(**kwargs)
    made.set_counts(counts)
    return made


def _space_shift(made):
    """(K,) d of the class's docstring."""
    phi = torch.tensor(COUNTS.fractal_dimensions).double() ** made.strength
    return math.log10(1 / 3) - (phi / phi.sum()).log10()


def _logit_of_product(a, b):
    with decimal.localcontext() as context:
        context.prec = 400
        score = 1 / (1 + (-decimal.Decimal(a)).exp()) / (1 + (-decimal.Decimal(b)).exp())
        return (score / (1 - score)).ln()


class TestFormulas:
    def test_prior_by_hand(self):
        # Priors 0.5, 0.25, 0.25 times K = 3: 1.5, 0.75, 0.75; minus tau log of these.
        counts = ClassCounts(("a", "b", "c"), (2, 1, 1), (2, 1, 1), num_images=4)
        made = adjustment(counts=counts, tau=2.0)
        x = torch.tensor([[0.0, 1.0, -1.0]])
        expected = [[-2 * math.log(1.5), 1 - 2 * math.log(0.75), -1 - 2 * math.log(0.75)]]
        torch.testing.assert_close(made(x, is_softmax=False), torch.tensor(expected))
        x = torch.tensor([[0.0, 1.0, -1.0, 7.0]])
        expected[0].append(7.0)  # background stays
        torch.testing.assert_close(made(x, is_softmax=True), torch.tensor(expected))

    def test_prior_of_images(self):
        # Shares of the images 0.5, 0.09, 0.01.
        x = torch.zeros(1, 3)
        expected = torch.tensor([[-math.log(p * 3) for p in (0.5, 0.09, 0.01)]])
        torch.testing.assert_close(adjustment(counted="images")(x, is_softmax=False), expected)

    def test_nothing_to_do(self):
        x = torch.randn(5, 3)
        torch.testing.assert_close(adjustment(tau=0.0)(x, is_softmax=False), x)
        equal = ClassCounts(("a", "b", "c"), (4, 4, 4), (4, 4, 4), num_images=12)
        torch.testing.assert_close(adjustment(counts=equal)(x, is_softmax=False), x)

    def test_fractal_softmax_by_hand(self):
        # K = 2, images (10, 1) of 20: p = 0.5, 0.05; c = log10(0.5) - log10(p) = 0, 1.
        # Phi = 2 and 1, strength 2: divided by 4 and 1. Logits 0 (and background's):
        # 1 / 4, e, 1 -> sum 3.968282.
        counts = ClassCounts(
            ("a", "b"), (10, 1), (10, 1), num_images=20, fractal_dimensions=(2.0, 1.0)
        )
        made = adjustment(FractalAdjustment, counts)
        scores = made(torch.zeros(1, 3), is_softmax=True).softmax(dim=1)
        parts = torch.tensor([[0.25, math.e, 1.0]])
        torch.testing.assert_close(scores, parts / parts.sum())

    def test_fractal_sigmoid_by_hand(self):
        # The same counts: d = log10(1/2) - log10(4 / 5), log10(1/2) - log10(1 / 5), that is
        # log10(0.625) = -0.204120 and log10(2.5) = 0.397940; c + d = -0.204120, 1.397940.
        counts = ClassCounts(
            ("a", "b"), (10, 1), (10, 1), num_images=20, fractal_dimensions=(2.0, 1.0)
        )
        made = adjustment(FractalAdjustment, counts)
        x = torch.tensor([[0.0, 0.0], [2.0, -3.0], [40.0, -40.0], [200.0, -90.0]])
        shift = torch.tensor([math.log10(0.625), 1 + math.log10(2.5)])
        scores = made(x, is_softmax=False).sigmoid()
        torch.testing.assert_close(scores, x.sigmoid() * (x + shift).sigmoid(), rtol=1e-5, atol=0)
        assert scores[2, 1] > 0  # a product of 1e-35 still ranks

    def test_fractal_sigmoid_is_exact_at_the_ends(self):
        """Where the score itself, in float64, is 0 or 1 to all digits as well."""
        made = adjustment(FractalAdjustment)
        x = torch.tensor([-300.0, -30, -1, 0, 1, 30, 300]).double()[:, None].expand(-1, 3)
        a, b = x, x + made.prior_shift[:3] + _space_shift(made)
        expected = [
            [float(_logit_of_product(p, q)) for p, q in zip(*rows, strict=True)]
            for rows in zip(a.tolist(), b.tolist(), strict=True)
        ]
        found = made(x, is_softmax=False)
        torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-6, atol=1e-6)
        ends = torch.tensor([[-math.inf] * 3, [math.inf] * 3])
        assert torch.equal(made(ends, is_softmax=False), ends)
        assert made(torch.full((1, 3), math.nan), is_softmax=False).isnan().all()

    def test_half_precision(self):
        for kind in (PriorAdjustment, FractalAdjustment):
            x = torch.randn(4, 3).half()
            out = adjustment(kind)(x, is_softmax=False)
            torch.testing.assert_close(out, adjustment(kind)(x.float(), is_softmax=False))

    def test_bad_input(self):
        with pytest.raises(ValueError, match="`tau` to be at least 0, but got -1"):
            PriorAdjustment(tau=-1)
        with pytest.raises(ValueError, match="`strength` to be at least 0"):
            FractalAdjustment(strength=-1)
        with pytest.raises(ValueError, match="`counted` to be 'instances' or 'images'"):
            PriorAdjustment(counted="boxes")
        with pytest.raises(RuntimeError, match="PriorAdjustment has no counts"):
            PriorAdjustment()(torch.zeros(1, 3), is_softmax=False)
        with pytest.raises(ValueError, match=r"logits of 3 classes.*the model has 4"):
            adjustment()(torch.zeros(1, 4), is_softmax=False)
        absent = ClassCounts(("a", "b"), (3, 0), (3, 0), num_images=3)
        with pytest.raises(ValueError, match=r"an instance of every class.* none of 'b'"):
            adjustment(counts=absent)
        old = ClassCounts(("a", "b"), (3, 1), (3, 1), num_images=3)
        with pytest.raises(ValueError, match=r"with fractal dimensions.*earlier version"):
            adjustment(FractalAdjustment, old)


def classifiers(model):
    """The last layers of the classifiers, and the columns of one prediction."""
    if hasattr(model, "roi_heads"):
        predictors = model.roi_heads.box_predictor
        predictors = predictors if isinstance(predictors, nn.ModuleList) else [predictors]
        return [x.cls_score for x in predictors], 4
    if hasattr(model.head, "heatmap"):
        return [model.head.heatmap[-1]], 3
    layers = model.head.cls_score
    return (list(layers), 4) if isinstance(layers, nn.ModuleList) else ([layers], 3)


MODELS = {
    "stock retinanet": small_retinanet,
    "retinanet": lambda: balance(small_retinanet()),
    "fcos": lambda: balance(small_fcos()),
    "foveabox": small_foveabox,
    "centernet": small_centernet,
    "ssd": small_ssd,
    "stock faster r-cnn": small_faster_rcnn,
    "cascade": lambda: balance(small_cascade_mask_rcnn()),
}


def detect(model):
    for module in model.modules():
        if hasattr(module, "test_score_thresh"):
            module.test_score_thresh = 0.0
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, 96, 112, generator=generator) * 255
    with torch.no_grad():
        return model.eval()([{"image": image}])[0]["instances"]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_a_shift_of_the_classifiers_biases(name):
    """In every detector: as if its last layer had been trained to other priors."""
    model, expected = build(MODELS[name]()), build(MODELS[name]())
    expected.load_state_dict(model.state_dict())
    before = detect(model)
    layers, columns = classifiers(expected)
    shift = torch.tensor([-math.log(p * 3) for p in (0.9, 0.09, 0.01)] + [0.0])[:columns]
    with torch.no_grad():
        for layer in layers:
            layer.bias += shift.repeat(len(layer.bias) // columns)
    handles = adjust_logits(model, adjustment())
    found, shifted = detect(model), detect(expected)
    assert len(found) == len(shifted) > 0
    torch.testing.assert_close(found.scores, shifted.scores)
    assert torch.equal(found.pred_classes, shifted.pred_classes)
    torch.testing.assert_close(found.pred_boxes.tensor, shifted.pred_boxes.tensor)
    assert not torch.allclose(found.scores[:5], before.scores[:5])
    for handle in handles:
        handle.remove()
    assert torch.equal(detect(model).scores, before.scores)


def test_training_is_not_touched():
    model = build(balance(small_retinanet()))
    batch = [make_input()]
    plain = training_step(model, batch)["loss_cls"]
    adjust_logits(model, adjustment(FractalAdjustment))
    assert training_step(build(balance(small_retinanet())), batch)["loss_cls"].isfinite()
    model.loss_normalizer.average = None
    assert torch.equal(training_step(model, batch)["loss_cls"], plain)
    assert detect(model).scores.isfinite().all()


def test_models_that_it_cannot_adjust():
    with pytest.raises(ValueError, match=r"a dense detector with `head`.*but got Linear"):
        adjust_logits(nn.Linear(2, 2), adjustment())
    two = ClassCounts(("a", "b"), (3, 1), (3, 1), num_images=3)
    with pytest.raises(ValueError, match="class counts of the model's 3 classes, but got 2"):
        adjust_logits(build(small_retinanet()), adjustment(counts=two))

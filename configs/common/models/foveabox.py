"""FoveaBox with its published settings, on Detectron2's ResNet-50 with FPN (P6 and P7 from C5)."""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from iou_balanced.losses import SigmoidFocalLoss, SmoothL1Loss
from iou_balanced.modeling import FoveaBox, FoveaBoxHead, FoveaBoxTransform, LossNormalizer

model = model_zoo.get_config("common/models/retinanet.py").model
model._target_ = FoveaBox
for _key in ("anchor_generator", "anchor_matcher", "focal_loss_alpha", "focal_loss_gamma"):
    del model[_key]
model.backbone.bottom_up.freeze_at = 2
model.head._target_ = FoveaBoxHead
del model.head.num_anchors
# One of each a level, P3 to P7.
model.base_sizes = [16, 32, 64, 128, 256]
model.scale_ranges = [[1, 64], [32, 128], [64, 256], [128, 512], [256, 2048]]
model.sigma = 0.4
model.box2box_transform = L(FoveaBoxTransform)(min_ratio=1 / 16, max_ratio=16.0)
model.cls_loss = L(SigmoidFocalLoss)(alpha=0.4, gamma=1.5)
model.box_loss = L(SmoothL1Loss)(beta=0.11)
model.loss_normalizer = L(LossNormalizer)(momentum=0.0, initial=None, across_processes=True)
model.test_score_thresh = 0.05
model.test_topk_candidates = 1000
model.test_nms_thresh = 0.5
model.max_detections_per_image = 100

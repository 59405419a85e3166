"""The quick profile: overrides that let any row of the tables train on a CPU in minutes.

They keep the row's detector and its losses, class weights and their schedule, and the kind of
learning rate schedule. They exchange the data set (handwritten digits in scenes, with a long tail
for class weights), the backbone (a small one, from scratch), sizes, optimizer and length. What
comes out says what the losses do at that size; it does not reproduce the papers' numbers.
"""

from .parse import RecordError
from .records import Row

SIZE = 96
ITERATIONS = 500
_SMALL = "iou_balanced.reproduction.small"
_DIGITS = "iou_balanced.data.register_digits"

COMMON = [
    f"datasets.train._target_={_DIGITS}",
    "datasets.train.split=train",
    "datasets.train.num_images=800",
    f"datasets.train.image_size={SIZE}",
    f"datasets.test._target_={_DIGITS}",
    "datasets.test.split=val",
    "datasets.test.num_images=200",
    f"datasets.test.image_size={SIZE}",
    # A mirrored digit is another one, or none; scenes are used at their own size.
    "dataloader.train.mapper.augmentations=[]",
    "dataloader.test.mapper.augmentations=[]",
    "dataloader.train.aspect_ratio_grouping=False",
    "dataloader.train.total_batch_size=8",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "dataloader.evaluator._target_=iou_balanced.evaluation.COCOBoxEvaluator",
    "optimizer._target_=torch.optim.AdamW",
    "optimizer.lr=0.003",
    "optimizer.weight_decay=0.05",
    "train.reference_batch_size=null",
    f"train.max_iter={ITERATIONS}",
    f"train.eval_period={ITERATIONS}",
    "train.checkpointer.period=100",
    "train.best_checkpoint.metric=null",
    "train.init_checkpoint=null",
    "train.device=cpu",
]
# Of a whole that is shorter; VOC's RetinaNet has no warm-up.
WARM_UP = ["lr_multiplier.warmup_length=0.1"]
LONG_TAIL = ["datasets.train.long_tail=True", "datasets.train.imbalance=100"]


def _resnet(stages: str, maps: str) -> list[str]:
    """A small backbone below a feature pyramid."""
    return [
        f"model.backbone.bottom_up._target_={_SMALL}.small_resnet",
        stages,
        f"model.backbone.bottom_up.out_features={maps}",
        f"model.backbone.in_features={maps}",
    ]


_FOUR = "model.backbone.bottom_up.widths=[24,32,64,128]"
_FOUR_STRIDES = "model.backbone.bottom_up.strides=[1,2,2,2]"
_PYRAMID = [
    "model.backbone.out_channels=64",
    "model.backbone.norm=BN",
    "model.backbone.top_block=null",  # objects are smaller than the cells of P6 and P7
]
_STD = "model.pixel_std=[57.375,57.12,58.395]"


def _head(num_maps: int) -> list[str]:
    """Two convolutions of 64 channels on each map, with a BatchNorm for each."""
    return [
        f"model.head.input_shape._target_={_SMALL}.shapes",
        f"model.head.input_shape.channels={[64] * num_maps}".replace(" ", ""),
        "model.head.conv_dims=[64,64]",
        "model.head.norm=BN",
    ]


DETECTORS = {
    "retinanet": [
        *_resnet(_FOUR, "[res3,res4,res5]"),
        _FOUR_STRIDES,
        *_PYRAMID,
        "model.head_in_features=[p3,p4,p5]",
        *_head(3),
        "model.anchor_generator.sizes=[[16,20.2,25.4],[32,40.3,50.8],[64,80.6,101.6]]",
        "model.anchor_generator.strides=[8,16,32]",
        "model.num_classes=10",
        _STD,
    ],
    "foveabox": [
        *_resnet("model.backbone.bottom_up.widths=[24,32,64]", "[res2,res3,res4]"),
        *_PYRAMID,
        "model.head_in_features=[p2,p3,p4]",
        *_head(3),
        "model.base_sizes=[8,16,32]",
        "model.scale_ranges=[[1,32],[16,64],[32,1024]]",
        "model.num_classes=10",
        _STD,
    ],
    # A point belongs to a level by how far the box reaches: P2 up to 32 px, P3 beyond.
    "fcos": [
        *_resnet("model.backbone.bottom_up.strides=[1,2,1]", "[res2,res4]"),
        *_PYRAMID,
        "model.head_in_features=[p2,p3]",
        *_head(2),
        "model.num_classes=10",
        _STD,
    ],
    "faster_rcnn": [
        *_resnet(_FOUR, "[res3,res4,res5]"),
        _FOUR_STRIDES,
        *_PYRAMID,
        "model.proposal_generator.in_features=[p3,p4,p5]",
        "model.proposal_generator.head.in_channels=64",
        "model.proposal_generator.anchor_generator.sizes=[[16],[32],[64]]",
        "model.proposal_generator.anchor_generator.strides=[8,16,32]",
        "model.proposal_generator.batch_size_per_image=64",
        "model.proposal_generator.pre_nms_topk=[400,200]",
        "model.proposal_generator.post_nms_topk=[200,100]",
        "model.roi_heads.box_in_features=[p3,p4,p5]",
        "model.roi_heads.batch_size_per_image=64",
        "model.roi_heads.box_pooler.scales=[0.125,0.0625,0.03125]",
        "model.roi_heads.box_pooler.output_size=5",
        "model.roi_heads.box_head.input_shape._target_=detectron2.layers.ShapeSpec",
        "model.roi_heads.box_head.input_shape.channels=64",
        "model.roi_heads.box_head.input_shape.height=5",
        "model.roi_heads.box_head.input_shape.width=5",
        "model.roi_heads.box_head.fc_dims=[128,128]",
        "model.roi_heads.box_predictor.input_shape._target_=detectron2.layers.ShapeSpec",
        "model.roi_heads.box_predictor.input_shape.channels=128",
        "model.roi_heads.num_classes=10",
        _STD,
    ],
    "ssd": [
        f"model.backbone._target_={_SMALL}.small_ssd_backbone",
        "model.head_in_features=[res3,res4,res5,extra1]",
        f"model.head.input_shape._target_={_SMALL}.shapes",
        "model.head.input_shape.channels=[48,64,96,96]",
        "model.head.num_anchors=[6,6,6,4]",
        f"model.anchor_generator.min_max_sizes.image_size={SIZE}",
        "model.anchor_generator.min_max_sizes.num_levels=4",
        "model.anchor_generator.min_max_sizes.scale_range=[0.29,0.59]",
        "model.anchor_generator.min_max_sizes.first_scale=0.18",
        "model.anchor_generator.aspect_ratios=[[2,3],[2,3],[2,3],[2]]",
        "model.anchor_generator.strides=[8,8,16,32]",
        "model.num_classes=10",
        _STD,
    ],
    "centernet": [
        # The neck of DLA-34, whose shortcuts are learned in far fewer iterations.
        "model.backbone._target_=iou_balanced.backbones.DLAUpNeck",
        *_resnet("model.backbone.bottom_up.widths=[24,32,64]", "[res2,res3,res4]"),
        "model.backbone.deformable=False",
        "model.head.in_channels=24",
        "model.head.head_channels=64",
        "model.canvas=null",
        "model.num_classes=10",
    ],
}


def detector_of(config: str) -> str:
    """ "retinanet" of "COCO/retinanet_R_50_FPN_1x".

    Raises:
        RecordError: there is no quick profile for it.
    """
    name = config.rsplit("/", 1)[-1]
    for detector in DETECTORS:
        if name.startswith(detector):
            return detector
    raise RecordError(f"{config}: no quick profile for it; there are {', '.join(DETECTORS)}")


def quick_overrides(row: Row) -> list[str]:
    """What the quick profile adds to the row's config and overrides.

    Args:
        row: of a table; one that is trained.

    Raises:
        RecordError: the row is cited, or its detector has no quick profile.
    """
    if row.config is None:
        raise RecordError(f"{row.id} is cited ({row.cited}): there is no config to train")
    detector = detector_of(row.config)
    tail = LONG_TAIL if row.id.startswith("bofl/") else []
    classes = ["train.init_classes=null"] if row.starts_from else []
    warm_up = [] if row.config.startswith("VOC/retinanet") else WARM_UP
    return [*COMMON, *warm_up, *tail, *classes, *DETECTORS[detector]]

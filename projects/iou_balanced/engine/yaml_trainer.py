"""The trainer for users of yaml (yacs) configs."""

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.engine import DefaultTrainer
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.solver import get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping

from iou_balanced.backbones import register_weights_handler
from iou_balanced.data import ClassCounts
from iou_balanced.data.centernet_yaml import centernet_augmentations, centernet_canvas
from iou_balanced.modeling import CenterNet

from .class_balance import ClassBalanceHook, class_balances
from .errors import UserError
from .hooks import ResumeStateHook


class BalancedDefaultTrainer(DefaultTrainer):
    """Detectron2's trainer for yaml configs, with what our detectors need beyond it.

    - Checkpoints keep the losses' state too, for `resume_or_load(resume=True)`.
    - Class weights (`MODEL.CLASS_BALANCE`) get the counts of `DATASETS.TRAIN`, and the iteration.
    - CenterNet gets the images of `iou_balanced.data.centernet_augmentations`. Those that it trains
      on all have one shape, so that `DATALOADER.ASPECT_RATIO_GROUPING` is left aside.
    - `MODEL.WEIGHTS` may be "timm://..." or "torchvision://...".
    - `SOLVER.OPTIMIZER: "ADAM"`, where the config has this key: Adam with L2 weight decay.

    Raises:
        UserError: the classes of `DATASETS.TRAIN` cannot be counted, or not weighed.
    """

    def __init__(self, cfg: CfgNode):
        register_weights_handler()
        super().__init__(cfg)

    def build_hooks(self) -> list:
        # The counts are there before `resume_or_load`, which compares the checkpoint's with them.
        return [*self._class_balance_hooks(), ResumeStateHook(self.model), *super().build_hooks()]

    def _class_balance_hooks(self) -> list[ClassBalanceHook]:
        modules = class_balances(self.model).values()
        if not modules:
            return []
        counts = None
        if any(m.class_counts is None and m.image_counts is None for m in modules):
            counts = getattr(self.data_loader, "class_counts", None)
            if counts is None:  # of a subclass with a loader of its own
                counts = _count_classes(self.cfg, _read_train_dataset(self.cfg))
        return [ClassBalanceHook(self.model, counts, config_key=_key)]

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        kwargs = {}
        if _puts_on_canvas(cfg):
            augmentations = centernet_augmentations(cfg, is_train=True)
            mapper = DatasetMapper(cfg, is_train=True, augmentations=augmentations)
            kwargs = {"mapper": mapper, "aspect_ratio_grouping": False}
        if "CLASS_BALANCE" not in cfg.MODEL or cfg.MODEL.CLASS_BALANCE.NAME == "":
            return build_detection_train_loader(cfg, **kwargs)
        dataset = _read_train_dataset(cfg)
        loader = build_detection_train_loader(cfg, dataset=dataset, **kwargs)
        # For the hook, which is made later: else the data set would have to be read again.
        loader.class_counts = _count_classes(cfg, dataset)
        return loader

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        if not _puts_on_canvas(cfg):
            return super().build_test_loader(cfg, dataset_name)
        augmentations = centernet_augmentations(cfg, is_train=False)
        mapper = DatasetMapper(cfg, is_train=False, augmentations=augmentations)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        name = cfg.SOLVER.get("OPTIMIZER", "SGD")
        if name == "SGD":
            return super().build_optimizer(cfg, model)
        if name != "ADAM":
            raise UserError(f"SOLVER.OPTIMIZER={name}: give 'SGD' or 'ADAM'")
        params = get_default_optimizer_params(
            model,
            base_lr=cfg.SOLVER.BASE_LR,
            weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
            bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
            weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        )
        return maybe_add_gradient_clipping(cfg, torch.optim.Adam)(
            params, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY
        )


def _key(name: str, argument: str) -> str:
    return f"MODEL.CLASS_BALANCE.{argument.upper()}".rstrip(".")


def _puts_on_canvas(cfg: CfgNode) -> bool:
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    is_centernet = isinstance(architecture, type) and issubclass(architecture, CenterNet)
    return is_centernet and centernet_canvas(cfg) is not None


def _read_train_dataset(cfg: CfgNode):
    """As Detectron2 reads it for a detector without keypoints and precomputed proposals."""
    return get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )


def _count_classes(cfg: CfgNode, dataset) -> ClassCounts:
    name = " + ".join(cfg.DATASETS.TRAIN)
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_classes")
    if not isinstance(dataset, list) or "annotations" not in dataset[0] or classes is None:
        raise UserError(
            f"data set {name}: class weights (MODEL.CLASS_BALANCE) need the counts of its classes, "
            "so that it has to be a list of dicts with annotations, and its metadata to have "
            "thing_classes"
        )
    return ClassCounts.from_dicts(dataset, classes, name=name)

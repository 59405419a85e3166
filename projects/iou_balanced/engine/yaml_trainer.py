"""The trainer for users of yaml (yacs) configs."""

import contextlib
import logging
import os

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
from detectron2.utils import comm

from iou_balanced.backbones import register_weights_handler
from iou_balanced.data import ClassCounts
from iou_balanced.data.image_reading import NamedErrors, install_reader
from iou_balanced.data.transforms.centernet import centernet_augmentations
from iou_balanced.geometry.canvas import centernet_canvas
from iou_balanced.modeling import CenterNet

from .bad_images import SkipCounter, training_mapper
from .class_balance import COUNTS_FILE, ClassBalanceHook, class_balances
from .errors import UserError
from .hooks import ResumeStateHook
from .loader import empty_data_as_user_error
from .trainer import Trainer
from .yaml_class_names import (
    YamlCheckpointer,
    check_classes,
    remember_classes,
    training_classes,
)
from .yaml_evaluation import TrainerWithEvaluation
from .yaml_options import check_yaml_options

logger = logging.getLogger(__name__)


class BalancedDefaultTrainer(TrainerWithEvaluation):
    """Detectron2's trainer for yaml configs, with what our detectors need beyond it.

    - Checkpoints keep the losses' state too, for `resume_or_load(resume=True)`, and the optimizer's
      with Detectron2 v0.6 as well, whose own trainer keeps it on the main branch only.
    - Class weights (`MODEL.CLASS_BALANCE`) get the counts of `DATASETS.TRAIN`, and the iteration.
    - CenterNet gets the images of `iou_balanced.data.centernet_augmentations`. Those that it trains
      on all have one shape, so that `DATALOADER.ASPECT_RATIO_GROUPING` is left aside.
    - `MODEL.WEIGHTS` may be "timm://..." or "torchvision://...".
    - `SOLVER.OPTIMIZER: "ADAM"`, where the config has this key: Adam with L2 weight decay.
    - `SOLVER.ACCUMULATION_STEPS: 4`, where the config has this key: the IMS_PER_BATCH images of an
      iteration pass through the model as 4 micro-batches, by our `Trainer` in the place of
      Detectron2's SimpleTrainer or AMPTrainer. It calls `build_train_loader`, also a subclass's,
      with the config of a micro-batch.
    - `DATALOADER.ON_BAD_IMAGE: "skip"`, where the config has this key: another image takes the
      place of a training image that cannot be read, with a count; "error" names it and ends.
    - `DATASETS.TEST` is evaluated by `build_evaluator`.
    - Classes are matched by name. Checkpoints have the names of `DATASETS.TRAIN`; a resume needs
      the same, and in `MODEL.WEIGHTS` the rows of a classifier are those of the classes of the same
      names. A test set may have its classes in another order, or lack some.

    Args:
        cfg: a yaml (yacs) config.

    Raises:
        UserError: a number that makes no sense (see `yaml_options`); the classes of
            `DATASETS.TRAIN` are not as many as the model's, or cannot be counted, or not weighed; a
            test set has others; a batch that the processes and micro-batches cannot share.
    """

    _class_counts: ClassCounts | None = None

    def __init__(self, cfg: CfgNode):
        check_yaml_options(cfg)
        register_weights_handler()
        training_classes(cfg)  # first: Detectron2 only says that they differ
        steps = cfg.SOLVER.get("ACCUMULATION_STEPS", 1)
        if steps != 1:
            # Detectron2's constructor calls it, with the batch of as many processes as there are.
            build = self.build_train_loader
            self.build_train_loader = lambda cfg: build(_micro_batch_config(cfg))
        super().__init__(cfg)
        if steps != 1:
            stock = self._trainer
            self._trainer = Trainer(
                stock.model,
                # Detectron2 v0.6 has opened the loader already: its workers are on their way.
                vars(stock).get("_data_loader_iter", stock.data_loader),
                stock.optimizer,
                amp_dtype="auto" if cfg.SOLVER.AMP.ENABLED else None,
                accumulation_steps=steps,
            )
            self._trainer.data_loader = stock.data_loader

    def train(self):
        if self._class_counts is not None and comm.is_main_process():
            # For `build_evaluator`. After `resume_or_load`, which may have refused them.
            self._class_counts.save(os.path.join(self.cfg.OUTPUT_DIR, COUNTS_FILE))
        return super().train()

    # Detectron2's main branch does the same; v0.6 loses the optimizer's state.
    def state_dict(self) -> dict:
        return {**super(DefaultTrainer, self).state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super(DefaultTrainer, self).load_state_dict(state_dict)
        if "_trainer" in state_dict:
            state = dict(state_dict["_trainer"])
            scaler = getattr(self._trainer, "grad_scaler", None)
            if scaler is not None:  # the interrupted run may have been without AMP
                state["grad_scaler"] = state.get("grad_scaler") or scaler.state_dict()
            self._trainer.load_state_dict(state)
        else:
            logger.warning("The checkpoint has no state of the optimizer: it starts afresh")

    def build_hooks(self) -> list:
        classes = training_classes(self.cfg)
        check_classes(self.cfg, self.model, classes)
        remember_classes(self.model, classes)
        # Here, because the hooks that Detectron2 makes below hold the checkpointer.
        stock = self.checkpointer
        self.checkpointer = YamlCheckpointer(
            self.model, stock.save_dir, classes=classes, **stock.checkpointables
        )
        # The counts are there before `resume_or_load`, which compares the checkpoint's with them.
        own = [*self._class_balance_hooks(), ResumeStateHook(self.model, config_key=_yaml_key)]
        return [*own, *super().build_hooks()]

    def _class_balance_hooks(self) -> list[ClassBalanceHook]:
        modules = class_balances(self.model).values()
        if not modules:
            if _weighs_classes(self.cfg):
                raise UserError(
                    f"MODEL.META_ARCHITECTURE {self.cfg.MODEL.META_ARCHITECTURE} does not read "
                    f"MODEL.CLASS_BALANCE.NAME {self.cfg.MODEL.CLASS_BALANCE.NAME}: give "
                    "BalancedRetinaNet or CenterNet, or NAME ''"
                )
            return []
        counts = None
        if any(m.class_counts is None and m.image_counts is None for m in modules):
            counts = getattr(self.data_loader, "class_counts", None)
            if counts is None:  # of a subclass with a loader of its own
                counts = _count_classes(self.cfg, _read_train_dataset(self.cfg))
        self._class_counts = counts
        return [ClassBalanceHook(self.model, counts, config_key=_yaml_key)]

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        _check_masks(cfg)
        install_reader()
        kwargs = {}
        if _puts_on_canvas(cfg):
            kwargs["aspect_ratio_grouping"] = False
        kwargs["mapper"] = mapper_of(cfg, is_train=True)
        on_bad_image = cfg.DATALOADER.get("ON_BAD_IMAGE", "error")
        with empty_data_as_user_error():
            if not _weighs_classes(cfg) and on_bad_image == "error":
                return build_detection_train_loader(cfg, **kwargs)
            dataset = _read_train_dataset(cfg)
        kwargs["mapper"] = training_mapper(kwargs["mapper"], dataset, on_bad_image)
        loader = build_detection_train_loader(cfg, dataset=dataset, **kwargs)
        if on_bad_image == "skip":
            loader = SkipCounter(loader, "DATALOADER.ON_BAD_IMAGE")
        if not _weighs_classes(cfg):
            return loader
        # For the hook, which is made later: else the data set would have to be read again. It is
        # the hook that says where counts are missing.
        with contextlib.suppress(UserError):
            loader.class_counts = _count_classes(cfg, dataset)
        return loader

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        install_reader()
        mapper = mapper_of(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimizer that `SOLVER.OPTIMIZER` names.

        Raises:
            UserError: it is neither "SGD" nor "ADAM".
        """
        name = cfg.SOLVER.get("OPTIMIZER", "SGD")
        if name == "SGD":
            return super().build_optimizer(cfg, model)
        if name != "ADAM":
            raise UserError(f"SOLVER.OPTIMIZER={name}: give SGD or ADAM")
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


def _yaml_key(name: str, argument: str) -> str:
    return f"MODEL.CLASS_BALANCE.{argument.upper()}".rstrip(".")


def _micro_batch_config(cfg: CfgNode) -> CfgNode:
    """The config of the loader that gives one of SOLVER.ACCUMULATION_STEPS micro-batches.

    Raises:
        UserError: the batch cannot be shared by them.
    """
    total, processes = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    steps = cfg.SOLVER.ACCUMULATION_STEPS
    if total % (processes * steps):
        among = f"{processes} processes with " if processes > 1 else ""
        raise UserError(
            f"SOLVER.IMS_PER_BATCH={total} cannot be shared by {among}{steps} micro-batches"
            f"{' each' if among else ''} (SOLVER.ACCUMULATION_STEPS): it has to be a multiple of "
            f"{processes * steps}"
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS = total // steps, 1
    cfg.freeze()
    return cfg


def _weighs_classes(cfg: CfgNode) -> bool:
    return "CLASS_BALANCE" in cfg.MODEL and cfg.MODEL.CLASS_BALANCE.NAME != ""


def _puts_on_canvas(cfg: CfgNode) -> bool:
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    is_centernet = isinstance(architecture, type) and issubclass(architecture, CenterNet)
    return is_centernet and centernet_canvas(cfg) is not None


def mapper_of(cfg: CfgNode, *, is_train: bool) -> NamedErrors:
    """Detectron2's mapper with the images that the model takes; its errors name the image."""
    kwargs = {}
    if _puts_on_canvas(cfg):
        kwargs["augmentations"] = centernet_augmentations(cfg, is_train=is_train)
    return NamedErrors(DatasetMapper(cfg, is_train=is_train, **kwargs))


def _check_masks(cfg: CfgNode) -> None:
    for name in cfg.DATASETS.TRAIN if cfg.MODEL.MASK_ON else ():
        if MetadataCatalog.get(name).get("masks") is False:
            raise UserError(
                f"MODEL.MASK_ON needs masks, which data set {name} does not read: register it with "
                "register_coco_json(masks=True)"
            )


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

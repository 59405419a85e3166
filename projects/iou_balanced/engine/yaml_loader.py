"""The training's loader of a yaml config."""

import logging
from functools import partial

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetMapper,
    MetadataCatalog,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm

from iou_balanced.data import ClassCounts
from iou_balanced.data.image_reading import NamedErrors, install_reader
from iou_balanced.data.stream import PackedDataset, build_stream_loader, temporary_seed
from iou_balanced.data.transforms.centernet import centernet_augmentations
from iou_balanced.geometry.canvas import centernet_canvas
from iou_balanced.modeling import CenterNet

from .bad_images import SkipCounter, training_mapper
from .errors import UserError, data_errors_as_user_errors
from .loader import ContinuingLoader, empty_data_as_user_error, goes_on
from .repeat_sampling import repeat_columns

logger = logging.getLogger(__name__)

_LATER = object()


def build_yaml_loader(cfg: CfgNode):
    """`build_stream_loader` for a yaml config, in a `ContinuingLoader`.

    An iterable data set gets Detectron2's loader.
    """
    _check_masks(cfg)
    install_reader()
    kwargs = {}
    if _puts_on_canvas(cfg):
        kwargs["aspect_ratio_grouping"] = False
    mapper = mapper_of(cfg, is_train=True)
    with empty_data_as_user_error():
        # The sampler is made with the seed, which is not known yet.
        read = build_detection_train_loader.from_config(cfg, mapper, sampler=_LATER)
    dataset, on_bad_image = read["dataset"], cfg.DATALOADER.get("ON_BAD_IMAGE", "error")
    mapper = training_mapper(mapper, dataset, on_bad_image)
    if not goes_on(dataset):
        return build_detection_train_loader(cfg, mapper, **kwargs)
    # For the hook, which is made later: else the data set would have to be read again.
    counts, columns = count_classes(cfg, dataset), None
    if counts is not None and cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        columns = _columns_of_sampling(cfg, dataset, counts)
    if isinstance(dataset, list):
        grouped = {**read, **kwargs}["aspect_ratio_grouping"]
        dataset = PackedDataset(dataset, grouped=grouped)
    loader = ContinuingLoader(
        partial(_build_stream, cfg, dataset, {"mapper": mapper, **kwargs}),
        cfg.SEED if cfg.SEED >= 0 else None,
    )
    loader.class_counts, loader.repeat_columns = counts, columns
    return loader


def micro_batch_config(cfg: CfgNode) -> CfgNode:
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


def weighs_classes(cfg: CfgNode) -> bool:
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


def read_train_dataset(cfg: CfgNode):
    """As Detectron2 reads it for a detector without keypoints and precomputed proposals."""
    return get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )


def count_classes(cfg: CfgNode, dataset) -> ClassCounts | None:
    """The class counts of `DATASETS.TRAIN`; None where the data or their classes are not known.

    Where the model weighs no classes, data that cannot be counted are told in the log only.

    Raises:
        UserError: a box is of a class that the data set does not have.
    """
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_classes")
    if not isinstance(dataset, list) or "annotations" not in dataset[0] or classes is None:
        return None
    try:
        with data_errors_as_user_errors():
            counts = ClassCounts.from_dicts(dataset, classes, name=" + ".join(cfg.DATASETS.TRAIN))
            return counts.with_fractal_dimensions(dataset)
    except UserError as e:
        if weighs_classes(cfg):
            raise
        logger.warning("The classes are not counted: %s", e)
        return None


def no_counts(cfg: CfgNode) -> UserError:
    """What to say where class weights need the counts, and there are none."""
    return UserError(
        f"data set {' + '.join(cfg.DATASETS.TRAIN)}: class weights (MODEL.CLASS_BALANCE) need the "
        "counts of its classes, so that it has to be a list of dicts with annotations, and its "
        "metadata to have thing_classes"
    )


def _columns_of_sampling(cfg: CfgNode, dataset: list, counts: ClassCounts) -> dict | None:
    if not cfg.DATALOADER.get("REPEAT_SQRT", True):  # the main branch; its factors are others
        return None
    threshold = cfg.DATALOADER.REPEAT_THRESHOLD
    return repeat_columns(dataset, threshold, counts, key="DATALOADER.REPEAT_THRESHOLD")


def _build_stream(cfg: CfgNode, dataset, kwargs: dict, start: int, seed: int | None):
    seed = comm.shared_random_seed() if seed is None else seed
    with temporary_seed(seed):
        stock = build_detection_train_loader.from_config(cfg, kwargs["mapper"], dataset=dataset)
    loader = build_stream_loader(**{**stock, **kwargs}, start=start, seed=seed)
    skips = cfg.DATALOADER.get("ON_BAD_IMAGE", "error") == "skip"
    return SkipCounter(loader, "DATALOADER.ON_BAD_IMAGE") if skips else loader

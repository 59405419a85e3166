"""Config keys for yaml (yacs) users."""

from detectron2.config import CfgNode
from torch import nn

from iou_balanced.losses import CorrelationLoss
from iou_balanced.losses.checks import check_non_negative
from iou_balanced.losses.localization import MEASURE_ITERATIONS
from iou_balanced.modeling.cls_members import check_member, member_call
from iou_balanced.modeling.loss_families import FOCAL, Family, box_family
from iou_balanced.modeling.normalizer import LossNormalizer


def add_iou_balanced_config(cfg: CfgNode) -> None:
    """Add the keys of `MODEL.IOU_BALANCED`, `SOLVER.ACCUMULATION_STEPS` and `TEST.REPORT`.

    `MODEL.META_ARCHITECTURE: BalancedRetinaNet` needs them; focal loss's alpha and gamma and
    smooth L1's beta come from `MODEL.RETINANET`, as in the stock detector. Set
    `MODEL.RETINANET.SMOOTH_L1_LOSS_BETA` to the paper's 0.11, for which its lambda and w_loc were
    tuned: the model zoo's configs have 0, which is L1.

    `MODEL.META_ARCHITECTURE: CenterNet` reads them too, and has plain losses without them. Its
    first boxes overlap nothing, so that there is no sensible w_loc to be measured: LOC_WEIGHT None
    is Eq. 7 there, as in `iou_balanced.balance`.

    Args:
        cfg: Detectron2's config; changed in place.
    """
    node = CfgNode()
    # eta of Eq. 4; 0.0 is the plain classification loss.
    node.CLS_ETA = 1.5
    # Another classification loss, one of iou_balanced.modeling.cls_members.MEMBERS; "" for the one
    # that CLS_ETA stands for. CLS_ETA counts for "iou_balanced_focal" only then.
    node.CLS_LOSS = ""
    # Weight of a correlation loss that is added to it; 0.0 for none.
    node.CORRELATION = 0.0
    # lambda of Eq. 6; 0.0 is the plain localization loss, times LOC_WEIGHT.
    node.LOC_LAMBDA = 1.5
    # w_loc of Eq. 6: a number, or None to measure it ("auto"); for CenterNet None is Eq. 7.
    node.LOC_WEIGHT = None
    # When it is measured: iterations to let pass, and iterations with positives that it takes. 0
    # and 1 are the paper's way, its first iteration.
    node.LOC_MEASURE_FROM = 0
    node.LOC_MEASURE_ITERATIONS = MEASURE_ITERATIONS
    # Eq. 7 instead of Eq. 6; LOC_WEIGHT has to be a number then, usually 1.
    node.LOC_NORMALIZE = False
    # Take the normaliser and the sums of Eq. 4, 7 and "auto" over all processes.
    node.ACROSS_PROCESSES = True
    cfg.MODEL.IOU_BALANCED = node
    add_trainer_config(cfg)


def add_trainer_config(cfg: CfgNode) -> None:
    """Add the keys of `iou_balanced.engine.BalancedDefaultTrainer`.

    All our functions for yaml configs do; a value that is there stays.
    """
    # Micro-batches that the IMS_PER_BATCH images of an iteration pass through the model in.
    if "ACCUMULATION_STEPS" not in cfg.SOLVER:
        cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Whether a training ends with report.html in OUTPUT_DIR.
    if "REPORT" not in cfg.TEST:
        cfg.TEST.REPORT = True
    # Scores adjusted by the training's class counts, where a trained model is evaluated:
    # "PriorAdjustment" or "FractalAdjustment" of iou_balanced.modeling; "" for none. The other keys
    # are its arguments; None is its own default.
    if "LOGIT_ADJUSTMENT" not in cfg.TEST:
        cfg.TEST.LOGIT_ADJUSTMENT = CfgNode()
        cfg.TEST.LOGIT_ADJUSTMENT.NAME = ""
        for name in ("TAU", "STRENGTH", "COUNTED", "CLASS_COUNTS"):
            cfg.TEST.LOGIT_ADJUSTMENT[name] = None
    # "error", or "skip": another training image takes the place of one that cannot be read.
    if "ON_BAD_IMAGE" not in cfg.DATALOADER:
        cfg.DATALOADER.ON_BAD_IMAGE = "error"


def make_losses(
    node: CfgNode | None,
    *,
    cls_family: Family,
    cls_arguments: dict,
    box_family: Family,
    box_arguments: dict,
    measure: bool = True,
) -> dict[str, nn.Module]:
    """The two losses of a detector, by `MODEL.IOU_BALANCED`, or plain where the config lacks it.

    An exponent of 0 gives the plain loss too, for boxes unless there is a w_loc to multiply it by.

    Args:
        node: `MODEL.IOU_BALANCED`, or None.
        cls_family: plain and balanced classification loss.
        cls_arguments: of either.
        box_family: plain and balanced box loss.
        box_arguments: of either.
        measure: whether a w_loc that is left out is measured; else it is Eq. 7 then.

    Raises:
        ValueError: the detector cannot use MODEL.IOU_BALANCED.CLS_LOSS or CORRELATION.
    """
    eta, lam, weight = 0.0, 0.0, None
    if node is not None:
        eta, lam, weight = node.CLS_ETA, node.LOC_LAMBDA, node.LOC_WEIGHT
    cls_loss, box_loss = cls_family.plain, box_family.plain
    if eta != 0:
        cls_loss = cls_family.balanced
        cls_arguments = {**cls_arguments, "eta": eta, "across_processes": node.ACROSS_PROCESSES}
    if lam != 0 or weight not in (None, 1):
        box_loss = box_family.balanced
        normalize = node.LOC_NORMALIZE
        if weight is None:
            weight, normalize = ("auto", normalize) if measure else (1.0, True)
        box_arguments = {
            **box_arguments,
            "lam": lam,
            "weight": weight,
            "normalize": normalize,
            "across_processes": node.ACROSS_PROCESSES,
            "measure_from": node.LOC_MEASURE_FROM,
            "measure_iterations": node.LOC_MEASURE_ITERATIONS,
        }
    made = _member(node, cls_family, cls_arguments) or cls_loss(**cls_arguments)
    if node is not None and node.get("CORRELATION"):
        check_non_negative(**{"MODEL.IOU_BALANCED.CORRELATION": node.CORRELATION})
        made = CorrelationLoss(
            loss=made, weight=node.CORRELATION, across_processes=node.ACROSS_PROCESSES
        )
    return {"cls_loss": made, "box_loss": box_loss(**box_arguments)}


def _member(node: CfgNode | None, family: Family, arguments: dict) -> nn.Module | None:
    """The loss that MODEL.IOU_BALANCED.CLS_LOSS names; None where it names none.

    Raises:
        ValueError: there is no such name, or the detector cannot use it.
    """
    if node is None:
        return None
    name, detector = node.get("CLS_LOSS") or None, "this MODEL.META_ARCHITECTURE"
    try:
        check_member(name, family, detector, node.get("CORRELATION") or None)
    except ValueError as e:
        raise ValueError(f"MODEL.IOU_BALANCED.CLS_LOSS and CORRELATION: {e}") from e
    if name is None:
        return None
    eta = (node.CLS_ETA or None) if name == "iou_balanced_focal" else None
    focal_arguments = {k: arguments[k] for k in family.arguments if k in arguments}
    loss, arguments = member_call(
        name,
        eta=eta,
        focal_arguments=focal_arguments,
        across_processes=node.ACROSS_PROCESSES,
    )
    return loss(**arguments)


def losses_from_config(cfg: CfgNode, *, alpha, gamma, beta, kind: str) -> dict:
    """The constructor arguments of `BalancedRetinaNet` that `MODEL.IOU_BALANCED` stands for.

    Raises:
        ValueError: the config has no such node, or there is no box loss `kind`.
    """
    if "IOU_BALANCED" not in cfg.MODEL:
        raise ValueError(
            "The config has no MODEL.IOU_BALANCED: call "
            "iou_balanced.modeling.add_iou_balanced_config(cfg) before merging the yaml file"
        )
    family = box_family(kind, "MODEL.RETINANET.BBOX_REG_LOSS_TYPE")
    node = cfg.MODEL.IOU_BALANCED
    losses = make_losses(
        node,
        cls_family=FOCAL,
        cls_arguments={"alpha": alpha, "gamma": gamma},
        box_family=family,
        box_arguments={"beta": beta} if "beta" in family.arguments else {},
    )
    return {**losses, "loss_normalizer": LossNormalizer(across_processes=node.ACROSS_PROCESSES)}

"""Config keys for yaml (yacs) users."""

from detectron2.config import CfgNode

from iou_balanced.losses import IoUBalancedFocalLoss

from .families import box_family
from .normalizer import LossNormalizer


def add_iou_balanced_config(cfg: CfgNode) -> None:
    """Add the keys of `MODEL.IOU_BALANCED` to Detectron2's config.

    `MODEL.META_ARCHITECTURE: BalancedRetinaNet` reads them; focal loss's alpha and gamma and
    smooth L1's beta come from `MODEL.RETINANET`, as in the stock detector. Set
    `MODEL.RETINANET.SMOOTH_L1_LOSS_BETA` to the paper's 0.11, for which its lambda and w_loc were
    tuned: the model zoo's configs have 0, which is L1.
    """
    node = CfgNode()
    # eta of Eq. 4; 0.0 is the plain classification loss.
    node.CLS_ETA = 1.5
    # lambda of Eq. 6; 0.0 is the plain localization loss, times LOC_WEIGHT.
    node.LOC_LAMBDA = 1.5
    # w_loc of Eq. 6: a number, or None to measure it at the first iteration ("auto").
    node.LOC_WEIGHT = None
    # Eq. 7 instead of Eq. 6; LOC_WEIGHT has to be a number then, usually 1.
    node.LOC_NORMALIZE = False
    # Take the normaliser and the sums of Eq. 4, 7 and "auto" over all processes.
    node.ACROSS_PROCESSES = True
    cfg.MODEL.IOU_BALANCED = node


def losses_from_config(cfg: CfgNode, *, alpha, gamma, beta, kind: str) -> dict:
    """The constructor arguments that `MODEL.IOU_BALANCED` stands for."""
    if "IOU_BALANCED" not in cfg.MODEL:
        raise ValueError(
            "The config has no MODEL.IOU_BALANCED: call "
            "iou_balanced.modeling.add_iou_balanced_config(cfg) before merging the yaml file"
        )
    family = box_family(kind, "MODEL.RETINANET.BBOX_REG_LOSS_TYPE")
    node = cfg.MODEL.IOU_BALANCED
    across = node.ACROSS_PROCESSES
    return {
        "cls_loss": IoUBalancedFocalLoss(
            eta=node.CLS_ETA, alpha=alpha, gamma=gamma, across_processes=across
        ),
        "box_loss": family.balanced(
            lam=node.LOC_LAMBDA,
            weight="auto" if node.LOC_WEIGHT is None else node.LOC_WEIGHT,
            **({"beta": beta} if "beta" in family.arguments else {}),
            normalize=node.LOC_NORMALIZE,
            across_processes=across,
        ),
        "loss_normalizer": LossNormalizer(across_processes=across),
    }

"""A classifier that was trained on other classes: its rows for the classes that are the same.

Letters: K foreground classes, A anchors of a location (1 in a box head). A classifier with softmax
has one more row for each anchor, the last, which is background; B is 1 then, else 0.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from torch import Tensor, nn

from iou_balanced.formats.class_names import list_names
from iou_balanced.modeling import CenterNetHead

from .errors import UserError

__all__ = ["INIT_CLASSES", "ClassMapping", "loaded_by_position", "same_classifier"]

logger = logging.getLogger(__name__)

INIT_CLASSES = "train.init_classes"


class ClassMapping:
    """Fits the class-wise rows of a checkpoint to a model of other classes, by the classes' names.

    Class-wise are the layers `cls_score` of every module that has a `bbox_pred` as well, as the
    heads of RetinaNet, FCOS and SSD and the predictors of the R-CNNs have, one layer or a list;
    `bbox_pred` itself where it has four rows for each class; the last layer of Mask R-CNN's masks
    where it has a row for each class; and that of CenterNet's heat map.
    """

    def __init__(
        self,
        *,
        source: Sequence[str],
        target: Sequence[str],
        origin: str = INIT_CLASSES,
        way_out: str = f"{INIT_CLASSES}=False",
        strict: bool = True,
    ):
        """
        Args:
            source: the checkpoint's classes, in the order of their rows.
            target: the model's, likewise.
            origin: what says `source`, for messages.
            way_out: what loads the rows as they are, for errors.
            strict: whether a layer that does not have the rows of `source` is an error; else it
                starts fresh, as where the checkpoint is of another kind of detector.
        """
        self.source, self.target = list(source), list(target)
        self.origin, self.way_out, self.strict = origin, way_out, strict
        # (row of the model, row of the checkpoint) of each class that both have
        self.shared = [
            (i, self.source.index(name)) for i, name in enumerate(target) if name in self.source
        ]

    @torch.no_grad()
    def apply(self, model: nn.Module, state: Mapping) -> dict:
        """The checkpoint's tensors, with the class-wise ones replaced.

        In these the rows of shared classes and of background are the checkpoint's, and the others
        the model's present ones, a prior in the bias included. What became of each row is logged.

        Args:
            model: the detector.
            state: the checkpoint's tensors by name.

        Raises:
            UserError: it cannot be told which row belongs to which class.
        """
        state = dict(state)
        prefix = "module." if state and all(k.startswith("module.") for k in state) else ""
        mapped, others = [], []
        try:
            layers = list(_class_wise_layers(model, len(self.target)))
        except _UnknownLayoutError as e:
            raise self._error(str(e)) from e
        for layer in layers:
            for name in (f"{layer.name}.weight", f"{layer.name}.bias"):
                own = dict(layer.module.named_parameters()).get(name.rsplit(".", 1)[-1])
                if own is None or prefix + name not in state:
                    continue
                if layer.one_for_all == len(own) == len(state[prefix + name]):
                    continue  # class-agnostic there, and of the only class here
                theirs = torch.as_tensor(state.pop(prefix + name))
                if self._fits(name, layer, own, theirs):
                    state[prefix + name] = self._mapped(layer, own, theirs)
                    mapped.append(name)
                else:
                    others.append(f"{name} {tuple(theirs.shape)}")
        if not layers:
            raise self._error(
                "the model has no classifier that could be mapped: no module has both cls_score "
                "and bbox_pred, or is a CenterNetHead"
            )
        self._report(mapped, others)
        return state

    def _error(self, text: str) -> UserError:
        return UserError(
            f"{self.origin}: the checkpoint's classes are {list_names(self.source)}, the "
            f"model's {list_names(self.target)}: the classifier's rows would have to be mapped, "
            f"but {text}. Give {self.way_out}, which leaves the rows as they are"
        )

    def _fits(self, name: str, layer: "_Layer", own: Tensor, theirs: Tensor) -> bool:
        outer, inner, background = layer.outer, layer.inner, layer.background
        expected = (outer * (len(self.source) + background) * inner, *own.shape[1:])
        if tuple(theirs.shape) == expected:
            return True
        if not self.strict:
            return False
        raise UserError(
            f"{name} has the shape {tuple(theirs.shape)} in the checkpoint, but {self.origin} has "
            f"{len(self.source)} classes ({', '.join(self.source[:3])}, ...), which make it "
            f"{expected} ({outer} x ({len(self.source)} classes + {background} background) x "
            f"{inner} rows): were these the classes that it was trained on, and with this kind of "
            "head?"
        )

    def _mapped(self, layer: "_Layer", own: Tensor, theirs: Tensor) -> Tensor:
        outer, inner, background = layer.outer, layer.inner, layer.background
        pairs = [*self.shared, *([(len(self.target), len(self.source))] if background else [])]
        to, by = ([pair[i] for pair in pairs] for i in (0, 1))
        result = own.detach().clone()
        shape = (outer, -1, inner, *own.shape[1:])  # the second is the class
        result.view(shape)[:, to] = theirs.to(result).reshape(shape)[:, by]
        return result

    def _report(self, mapped: list[str], others: list[str]) -> None:
        if others:
            logger.warning(
                "%s: layers of the checkpoint have other shapes than this kind of head with these "
                "%d classes, and are not loaded: %s",
                self.origin,
                len(self.source),
                ", ".join(others),
            )
            if not mapped:
                return
        if not mapped:
            logger.warning(
                "%s: the checkpoint has no classifier, so no row of it is mapped; "
                "all %d classes start fresh.",
                self.origin,
                len(self.target),
            )
            return
        rows = [f"{self.target[i]} ({i} from {j})" for i, j in self.shared]
        taken = {i for i, _ in self.shared}
        fresh = [name for i, name in enumerate(self.target) if i not in taken]
        logger.log(
            logging.INFO if rows else logging.WARNING,
            "%s: in %s, the rows of %d of %d classes are the checkpoint's: %s. "
            "Starting fresh: %s. Of the checkpoint's %d classes, %d are not used.",
            self.origin,
            ", ".join(mapped),
            len(rows),
            len(self.target),
            ", ".join(rows) or "none",
            ", ".join(fresh) or "none",
            len(self.source),
            len(self.source) - len(rows),
        )


def loaded_by_position(model: nn.Module, num_classes: int, unmatched: Collection[str]) -> bool:
    """Whether a file that was loaded as it is held a classifier for this one.

    Args:
        model: the detector.
        num_classes: K.
        unmatched: names of the model's parameters that the file lacked, or had in another shape.
    """
    try:
        layers = list(_class_wise_layers(model, num_classes))
    except _UnknownLayoutError:
        return False
    return bool(layers) and not any(f"{layer.name}.weight" in unmatched for layer in layers)


def same_classifier(model: nn.Module, num_classes: int, state: Mapping) -> bool:
    """Whether a checkpoint has the classifier that the model has now.

    Also where it cannot be told which layers these are.

    Args:
        model: the detector.
        num_classes: K.
        state: the checkpoint's tensors by name.
    """
    try:
        layers = list(_class_wise_layers(model, num_classes))
    except _UnknownLayoutError:
        return True
    own = model.state_dict()
    names = [f"{layer.name}.weight" for layer in layers]
    return all(
        name in state
        and state[name].shape == own[name].shape
        and torch.equal(torch.as_tensor(state[name]).to(own[name]), own[name])
        for name in names
    )


class _UnknownLayoutError(Exception):
    """It cannot be told which rows of a layer belong to which class."""


@dataclass(frozen=True)
class _Layer:
    """A layer whose rows are numbered (outer, class or background, inner)."""

    name: str
    module: nn.Module
    outer: int
    inner: int
    background: int  # B
    one_for_all: int = 0  # rows of a layer that knows no classes, where there are such


def _class_wise_layers(model: nn.Module, num_classes: int) -> Iterator[_Layer]:
    for name, head in model.named_modules():
        if isinstance(head, CenterNetHead):
            last = len(head.heatmap) - 1
            yield _Layer(f"{name}.heatmap.{last}".lstrip("."), head.heatmap[last], 1, 1, 0)
        if isinstance(head, MaskRCNNConvUpsampleHead) and len(head.predictor.weight) == num_classes:
            yield _Layer(f"{name}.predictor".lstrip("."), head.predictor, 1, 1, 0, one_for_all=1)
        scores, boxes = getattr(head, "cls_score", None), getattr(head, "bbox_pred", None)
        if not isinstance(scores, nn.Module) or not isinstance(boxes, nn.Module):
            continue
        prefix = f"{name}." if name else ""
        for end, score, box in _pairs(scores, boxes):
            yield from _layers_of_pair(prefix, end, score, box, num_classes)


def _pairs(scores: nn.Module, boxes: nn.Module) -> list[tuple[str, nn.Module, nn.Module]]:
    """(end of the name, classifier, regressor), of each level where they are lists."""
    if isinstance(scores, nn.ModuleList) and isinstance(boxes, nn.ModuleList):
        return [(f".{i}", s, b) for i, (s, b) in enumerate(zip(scores, boxes, strict=True))]
    return [("", scores, boxes)]


def _layers_of_pair(
    prefix: str, end: str, score: nn.Module, box: nn.Module, num_classes: int
) -> Iterator[_Layer]:
    name, box_name = f"{prefix}cls_score{end}", f"{prefix}bbox_pred{end}"
    rows, box_rows = (
        len(m.weight) if isinstance(getattr(m, "weight", None), Tensor) else 0 for m in (score, box)
    )
    # A convolution has four box rows for each anchor. A linear layer has one anchor, and four rows
    # for it or for each class.
    of_classes = isinstance(box, nn.Linear) and box_rows == 4 * num_classes
    num_anchors = 1 if of_classes else box_rows // 4
    for background in (0, 1):
        if box_rows and box_rows % 4 == 0 and rows == num_anchors * (num_classes + background):
            yield _Layer(name, score, num_anchors, 1, background)
            if of_classes:
                yield _Layer(box_name, box, 1, 4, 0, one_for_all=4)
            return
    raise _UnknownLayoutError(
        f"it cannot be told which of the {rows} rows of {name} belong to which of the "
        f"{num_classes} classes: {box_name} has {box_rows} rows"
    )

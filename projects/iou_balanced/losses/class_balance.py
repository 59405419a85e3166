"""What weighs a detector's classes: counts of the training set, and a schedule.

Shapes: N images, R rows of an image (anchors, points), G objects of an image, K foreground
classes.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_counts, check_flags, check_non_negative
from .class_tables import ClassWeights, join_tables
from .reweighting import check_class_lists, schedule_weights
from .schedules import Schedule

logger = logging.getLogger(__name__)


class ClassBalance(nn.Module):
    """Base of the modules that a detector takes as `class_balance`.

    A subclass turns counts into `alpha` (`count_weights`) and a batch into weights (`weights`).
    Called in training with the ground truth of a batch, it returns the `class_weight` of the
    classification loss. It needs the training set's counts and the trainer's iteration, which
    `iou_balanced.engine.ClassBalanceHook` gives it; evaluation needs neither.

    Args:
        num_classes: K.
        schedule: turns an iteration into lambda of Eq. 7; None: the full weights throughout.
        intensity: factor on alpha - 1, and on nothing else; 0.05 on COCO-LT (Table 12).
        allow_other_counts: whether a resumed run may have another training set. If not, counts
            other than the checkpoint's are an error.

    Raises:
        ValueError: a value is not as above.
    """

    needs_sigmoid = False
    alpha: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        schedule: Schedule | None,
        intensity: float = 1.0,
        allow_other_counts: bool = False,
    ):
        super().__init__()
        check_counts(least=1, num_classes=num_classes)
        check_non_negative(intensity=intensity)
        check_flags(allow_other_counts=allow_other_counts)
        if schedule is not None and not hasattr(schedule, "progress"):
            raise ValueError(
                "Expected argument `schedule` to be None or to have `progress`, as LinearSchedule "
                f"has, but got {schedule!r}"
            )
        self.num_classes, self.schedule, self.intensity = num_classes, schedule, intensity
        self.allow_other_counts = allow_other_counts
        self.class_counts: list[int] | None = None
        self.image_counts: list[int] | None = None
        self.class_names: list[str] | None = None
        self.iteration: tuple[int, int] | None = None
        self._resumed_length: int | None = None
        self.weights_in_force: ClassWeights | None = None
        """Of the last batch, for hooks that log them."""
        # Within `whole_batch`: of the batch, and of its parts so far.
        self._batch_statistics: Tensor | None = None
        self._parts: list[ClassWeights] | None = None
        # Moves with the model, but belongs to no checkpoint: another training set has others.
        self.register_buffer("alpha", torch.ones(num_classes), persistent=False)

    def set_class_counts(
        self,
        class_counts: Sequence[int] | None,
        image_counts: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Take the counts of the training set.

        Args:
            class_counts: (K,) instances of each class; None where the weighting needs none.
            image_counts: (K,) images that show each class; None likewise.
            class_names: (K,), to be named in messages, and compared on a resume.

        Raises:
            ValueError: they are not K, or a weight that follows is negative or infinite.
        """
        check_class_lists(
            self.num_classes,
            class_counts=class_counts,
            image_counts=image_counts,
            class_names=class_names,
        )
        alpha = self.count_weights(class_counts, image_counts)
        least = 1 + self.intensity * (alpha - 1)
        bad = (~(least >= 0) | least.isinf()).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"Expected class weights of at least 0, but class {bad[0]} with alpha "
                f"{alpha[bad[0]]:.3g} has {least[bad[0]]:.3g} at an intensity of {self.intensity}: "
                "lower the intensity"
            )
        self.alpha = alpha.to(self.alpha)
        self.class_counts = None if class_counts is None else [int(x) for x in class_counts]
        self.image_counts = None if image_counts is None else [int(x) for x in image_counts]
        self.class_names = None if class_names is None else list(class_names)

    def set_iteration(self, iteration: int, max_iter: int) -> None:
        """Say which iteration the next call belongs to.

        Args:
            iteration: in [0, max_iter).
            max_iter: iterations of the training.
        """
        length = self._resumed_length
        if self.schedule is not None and length is not None and length != max_iter:
            before = self.schedule.progress(min(iteration, length - 1), length)
            logger.warning(
                "The interrupted run had %d iterations and this one has %d: the schedule of the "
                "class weights is stretched over them, so that lambda is %.3g in the place of %.3g",
                length,
                max_iter,
                self.schedule.progress(iteration, max_iter),
                before,
            )
        self._resumed_length = None
        self.iteration = (iteration, max_iter)

    @property
    def progress(self) -> float:
        """lambda of Eq. 7 in this iteration.

        Raises:
            RuntimeError: there is a schedule, and nobody says which iteration it is.
        """
        if self.schedule is None:
            return 1.0
        if self.iteration is None:
            raise RuntimeError(
                f"{type(self).__name__} has a schedule and does not know the iteration: register "
                "iou_balanced.engine.ClassBalanceHook with the trainer (tools/train_net.py does), "
                "or call set_iteration(iteration, max_iter) before each step"
            )
        return self.schedule.progress(*self.iteration)

    def final_weights(self, max_iter: int) -> Tensor:
        """(K,) alpha-hat of Eq. 7 in the last iteration, without what varies by batch.

        Args:
            max_iter: iterations of the training.
        """
        return self.scheduled(self.last_progress(max_iter))

    def scheduled(self, progress: float) -> Tensor:
        """(K,) alpha-hat of Eq. 7.

        Args:
            progress: lambda, in [0, 1].
        """
        return schedule_weights(self.alpha, progress, self.intensity)

    def last_progress(self, max_iter: int) -> float:
        """lambda of Eq. 7 in the last iteration.

        Args:
            max_iter: iterations of the training.
        """
        return 1.0 if self.schedule is None else self.schedule.progress(max_iter - 1, max_iter)

    def forward(
        self, gt_classes: Sequence[Tensor] | None, gt_labels: Tensor | Sequence[Tensor]
    ) -> Tensor | ClassWeights:
        """The class weights of a batch, without gradient, on the module's device.

        Args:
            gt_classes: one (G,) an image, the classes of its objects after augmentation, without
                crowd boxes. None where they are not known.
            gt_labels: (N, R), or one (R,) an image: -1 ignored, 0..K-1, K background.

        Raises:
            RuntimeError: the counts of the training set, or the iteration, are not known.
            ValueError: `gt_classes` is needed and not given.
        """
        if self.class_counts is None and self.image_counts is None:
            raise RuntimeError(
                f"{type(self).__name__} does not know how frequent the classes are: register "
                "iou_balanced.engine.ClassBalanceHook with the trainer (tools/train_net.py does), "
                "or give class_counts"
            )
        with torch.no_grad():
            weights = self.weights(gt_classes, gt_labels)
        tables = weights if isinstance(weights, ClassWeights) else ClassWeights(*[weights] * 3)
        if self._parts is not None:
            self._parts.append(tables)
            tables = join_tables(self._parts)
        self.weights_in_force = tables
        return weights

    def batch_statistics(
        self,
        gt_classes: Sequence[Tensor] | None,
        gt_labels: Tensor | Sequence[Tensor] | None,
    ) -> Tensor | None:
        """What an image's weights depend on in the other images of the batch, as a sum over them.

        Args:
            gt_classes: see `forward`.
            gt_labels: see `forward`; None where they are not known before the forward pass, as
                those of an R-CNN's samples.

        Returns:
            None where every image stands by itself.

        Raises:
            ValueError: what is to be counted is None.
        """
        return None

    @contextlib.contextmanager
    def whole_batch(self, statistics: Tensor | None) -> Iterator[None]:
        """The calls within are for parts of one batch.

        Args:
            statistics: sum of the `batch_statistics` of all parts of this process.
        """
        self._batch_statistics, self._parts = statistics, []
        try:
            yield
        finally:
            self._batch_statistics = self._parts = None

    def count_weights(
        self, class_counts: Sequence[int] | None, image_counts: Sequence[int] | None
    ) -> Tensor:
        """(K,) alpha, before any schedule.

        Args:
            class_counts: (K,) instances of each class in the training set, or None.
            image_counts: (K,) images that show each class, or None.

        Raises:
            ValueError: the counts that it needs are None or make no sense.
        """
        raise NotImplementedError

    def weights(
        self, gt_classes: Sequence[Tensor] | None, gt_labels: Tensor | Sequence[Tensor]
    ) -> Tensor | ClassWeights:
        """The weights of a batch; see `ClassBalance.forward`."""
        raise NotImplementedError

    def resume_state_dict(self) -> dict[str, Any]:
        """The counts that the run's weights come from, and the length of its schedule."""
        return {
            "class_counts": self.class_counts,
            "image_counts": self.image_counts,
            "class_names": self.class_names,
            "max_iter": None if self.iteration is None else self.iteration[1],
        }

    def load_resume_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare the interrupted run's counts with those of this one.

        Args:
            state: a `resume_state_dict`.

        Raises:
            ValueError: they differ, and `allow_other_counts` is False.
        """
        for name in ("class_names", "class_counts", "image_counts"):
            ours, theirs = getattr(self, name), state.get(name)
            if ours is None or theirs is None or list(theirs) == ours or self.allow_other_counts:
                continue
            differ = [i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b]
            where = f"{len(theirs)} classes there"
            if differ:
                i = differ[0]
                label = repr(self.class_names[i]) if self.class_names else i
                where = f"of class {label} {theirs[i]!r} there and {ours[i]!r} here"
            raise ValueError(
                f"The interrupted run had other {name} than this training set, {where}, so that "
                "its class weights would change: resume with the same data, or allow it with "
                "allow_other_counts=True"
            )
        self._resumed_length = state.get("max_iter")
        if self.class_counts is None and self.image_counts is None:
            counts = [state.get(name) for name in ("class_counts", "image_counts", "class_names")]
            if any(x is not None for x in counts[:2]):
                self.set_class_counts(*counts)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, intensity={self.intensity}"

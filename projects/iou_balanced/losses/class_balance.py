"""What weighs a detector's classes: counts of the training set, and a schedule.

Shapes: N images, R rows of an image (anchors, points), G objects of an image, K foreground
classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .class_tables import ClassWeights
from .reweighting import schedule_weights


class ClassBalance(nn.Module):
    """Base of the modules that a detector takes as `class_balance`.

    A subclass turns counts into `alpha` (`count_weights`) and a batch into weights (`weights`).
    Called in training with the ground truth of a batch, it returns the `class_weight` of the
    classification loss. It needs the training set's counts and the trainer's iteration, which
    `iou_balanced.engine.ClassBalanceHook` gives it; evaluation needs neither.

    Args:
        num_classes: K.
        schedule: turns an iteration into lambda of Eq. 7; None: the full weights throughout.
        allow_other_counts: whether a resumed run may have another training set. If not, counts
            other than the checkpoint's are an error.
    """

    needs_sigmoid = False

    def __init__(
        self,
        *,
        num_classes: int,
        schedule: nn.Module | None = None,
        allow_other_counts: bool = False,
    ):
        super().__init__()
        self.num_classes, self.schedule = num_classes, schedule
        self.allow_other_counts = allow_other_counts
        self.class_counts: list[int] | None = None
        self.image_counts: list[int] | None = None
        self.iteration: tuple[int, int] | None = None
        self.weights_in_force: ClassWeights | None = None
        """Of the last batch, for those who watch."""
        # Moves with the model, but belongs to no checkpoint: another training set has others.
        self.register_buffer("alpha", torch.ones(num_classes), persistent=False)

    def set_class_counts(
        self, class_counts: Sequence[int] | None, image_counts: Sequence[int] | None = None
    ) -> None:
        """Take the counts of the training set, (K,) instances and (K,) images of each class.

        Raises:
            ValueError: they are not K, or the weights that follow are not finite.
        """
        for name, counts in (("class_counts", class_counts), ("image_counts", image_counts)):
            if counts is not None and len(counts) != self.num_classes:
                raise ValueError(
                    f"Expected argument `{name}` to have a number for each of the "
                    f"{self.num_classes} classes, but got {len(counts)}"
                )
        alpha = self.count_weights(class_counts, image_counts)
        self.alpha = alpha.to(self.alpha)
        self.class_counts = None if class_counts is None else [int(x) for x in class_counts]
        self.image_counts = None if image_counts is None else [int(x) for x in image_counts]

    def set_iteration(self, iteration: int, max_iter: int) -> None:
        """Say which of `max_iter` iterations, counted from 0, the next call belongs to."""
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
        """(K,) what `alpha` has become in the last iteration, without what varies by batch."""
        return self.scheduled(self.last_progress(max_iter))

    def scheduled(self, progress: float) -> Tensor:
        """(K,) alpha-hat of Eq. 7."""
        return schedule_weights(self.alpha, progress)

    def last_progress(self, max_iter: int) -> float:
        """lambda of Eq. 7 in the last of `max_iter` iterations."""
        return 1.0 if self.schedule is None else self.schedule.progress(max_iter - 1, max_iter)

    def forward(
        self, gt_classes: Sequence[Tensor] | None, gt_labels: Tensor | Sequence[Tensor]
    ) -> Tensor | ClassWeights:
        """The class weights of a batch, without gradient, on the device of `gt_labels`.

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
        self.weights_in_force = (
            weights if isinstance(weights, ClassWeights) else ClassWeights(*[weights] * 3)
        )
        return weights

    def count_weights(self, class_counts, image_counts) -> Tensor:
        """(K,) what the counts of the training set come to, before any schedule."""
        raise NotImplementedError

    def weights(self, gt_classes, gt_labels) -> Tensor | ClassWeights:
        """See `forward`."""
        raise NotImplementedError

    def resume_state_dict(self) -> dict:
        """The counts that the run's weights come from."""
        return {"class_counts": self.class_counts, "image_counts": self.image_counts}

    def load_resume_state_dict(self, state: dict) -> None:
        """Compare the interrupted run's counts with those of this one.

        Raises:
            ValueError: they differ, and `allow_other_counts` is False.
        """
        for name, ours in self.resume_state_dict().items():
            theirs = state.get(name)
            if ours is None or theirs is None or list(theirs) == ours or self.allow_other_counts:
                continue
            differ = [i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b]
            where = (
                f"of class {differ[0]} {theirs[differ[0]]} there and {ours[differ[0]]} here"
                if differ
                else f"of {len(theirs)} classes there"
            )
            raise ValueError(
                f"The interrupted run had other {name} than this training set, {where}, so that "
                "its class weights would change: resume with the same data, or allow it with "
                "model.class_balance.allow_other_counts=True"
            )
        if self.class_counts is None and self.image_counts is None:
            counts = state.get("class_counts"), state.get("image_counts")
            if any(x is not None for x in counts):
                self.set_class_counts(*counts)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}"

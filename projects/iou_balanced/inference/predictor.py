"""A trained model as a function of images."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from iou_balanced.engine import UserError
from iou_balanced.engine.logit_adjustment import put_adjustment
from iou_balanced.formats.image_files import check_pixel_range
from iou_balanced.modeling import LogitAdjustment

from .detector import Detector, load_detector
from .input_images import check_order

PRECISIONS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Predictor:
    """Runs a trained detector on images; its boxes are those that the evaluator gets.

    Images pass through the config's own test mapper: its reader, its test augmentations and its
    order of channels. Those of a batch that have another size in the network run apart, because
    padding to a common size would change the boxes near the border: what is found in an image does
    not depend on its neighbours.

    Args:
        config: a LazyConfig (.py, or .yaml as a training saves it) or a yacs config: a file, a name
            in Detectron2's model zoo, or what is loaded of one. Not needed with an .onnx file.
        weights: a checkpoint of the model, or an .onnx file of tools/export.py.
        device: such as "cuda:1"; by default the first GPU, or the CPU where there is none.
        score_thresh: detections have this score or a higher one. Below the detector's own threshold
            there is nothing to find; an override such as `model.test_score_thresh=0.01` lowers it.
        image_format: the order of the channels in arrays that are given, "BGR" (as OpenCV reads
            them, and as Detectron2's DefaultPredictor takes them) or "RGB". Files and images of
            Pillow know their own.
        batch_size: images that run at once.
        pixel_range: how files of more than 8 bits are scaled, (low, high) or "image"; by default as
            the test set of a LazyConfig says, or else they are refused.
        precision: "float32", or "float16" or "bfloat16" for autocast.
        overrides: `key=value` for the config, as of tools/train_net.py.
        logit_adjustment: scores adjusted by the frequencies of the classes, such as
            `iou_balanced.modeling.PriorAdjustment(tau=0.5)`; with the class counts beside the
            weights, unless it has some. A LazyConfig has `train.logit_adjustment` for it, too.

    Attributes:
        class_names: in the order of `pred_classes`: the checkpoint's, or where it has none those
            of the config's data sets, or else numbers.
        has_names: whether they are names and not numbers.

    Raises:
        ValueError: an argument is none of the above.
        UserError: (a ValueError) a file is missing or does not fit; names it.
    """

    def __init__(
        self,
        config: str | os.PathLike | object | None,
        weights: str | os.PathLike,
        *,
        device: str | None = None,
        score_thresh: float = 0.0,
        image_format: str = "BGR",
        batch_size: int = 1,
        precision: str = "float32",
        pixel_range=None,
        overrides: Sequence[str] = (),
        logit_adjustment: LogitAdjustment | None = None,
    ):
        check_order(image_format, "image_format")
        if precision not in PRECISIONS:
            raise ValueError(
                f"Expected argument `precision` to be one of {list(PRECISIONS)}, but got "
                f"{precision!r}"
            )
        if not batch_size >= 1:
            raise ValueError(f"Expected argument `batch_size` to be at least 1: {batch_size}")
        if not 0 <= score_thresh <= 1:
            raise ValueError(f"Expected argument `score_thresh` in [0, 1], but got {score_thresh}")
        if precision != "float32" and is_onnx(weights):
            raise ValueError(
                f"Expected argument `precision` to be 'float32' with {weights}, but got "
                f"{precision!r}: an .onnx file has the precision that it has"
            )
        if logit_adjustment is not None and is_onnx(weights):
            raise ValueError(
                f"Expected argument `logit_adjustment` to be None with {weights}: it has to be "
                "there when the file is exported"
            )
        self._detector = _load(config, weights, device=device, overrides=overrides)
        if logit_adjustment is not None:
            put_adjustment(
                logit_adjustment,
                self._detector.model,
                [os.path.dirname(weights)],
                self._detector.class_names,
                key="logit_adjustment",
            )
        self.images = self._detector.images
        if pixel_range is not None:
            self.images.pixel_range = check_pixel_range(pixel_range)
        self.score_thresh = score_thresh
        self.image_format = image_format
        self.batch_size = batch_size
        self.precision = precision
        names = self._detector.class_names
        self.has_names = names is not None
        self.class_names = _Numbers() if names is None else list(names)

    @property
    def model(self) -> torch.nn.Module | None:
        """The detector in eval mode; None where it runs in ONNX Runtime."""
        return self._detector.model

    def __call__(self, images):
        """Detections of an image, or of a list of images.

        Args:
            images: one or a list of: a path; an image of Pillow; an array (H, W, 3) uint8 with
                channels in the order `image_format`, or gray, (H, W).

        Returns:
            dict: for one image, {"instances": Instances} as of any detector of Detectron2: on the
            CPU, by descending score, pred_boxes XYXY in pixels of the image, scores and
            pred_classes. For a list, a list of these.

        Raises:
            ImageError: (a ValueError) a file cannot be read; names it.
            ValueError: an array is something else.
        """
        if not isinstance(images, (list, tuple)):
            return self([images])[0]
        found = []
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            found += self.run([self.prepare(image) for image in part])
        return found

    def prepare(self, image) -> dict:
        """The model's input of one image; see `__call__`.

        Args:
            image: one, of the kinds that `__call__` takes.

        Raises:
            TypeError: neither a path nor an array nor an image of Pillow.
        """
        if isinstance(image, (str, os.PathLike)):
            return self.images.from_file(image)
        if isinstance(image, Image.Image):
            return self.images.from_pil(image)
        if isinstance(image, np.ndarray):
            return self.images.from_array(image, self.image_format)
        raise TypeError(
            "Expected an image to be a path, an array of numpy or an image of Pillow, but got "
            f"{type(image).__name__}"
        )

    @torch.no_grad()
    def run(self, inputs: Sequence[dict]) -> list[dict]:
        """Outputs for inputs that `prepare` made, all at once; see `__call__`.

        Args:
            inputs: of any sizes; those of one size are a batch.
        """
        same_size = defaultdict(list)
        for i, x in enumerate(inputs):
            same_size[tuple(x["image"].shape)].append(i)
        outputs: list = [None] * len(inputs)
        with self._autocast():
            for places in same_size.values():
                batch = [inputs[i] for i in places]
                for i, output in zip(places, self._detector.run(batch), strict=True):
                    outputs[i] = self._finished(output)
        return outputs

    def _autocast(self):
        dtype = PRECISIONS[self.precision]
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._detector.device.type, dtype=dtype)

    def _finished(self, output: dict) -> dict:
        instances = output["instances"].to("cpu")
        instances.scores = instances.scores.float()  # of 16 bits with autocast
        instances.pred_boxes.tensor = instances.pred_boxes.tensor.float()
        return {**output, "instances": instances[instances.scores >= self.score_thresh]}


class _Numbers:
    """Class names where nothing says them."""

    def __getitem__(self, index: int) -> str:
        return f"class {index}"


def is_onnx(weights: str | os.PathLike) -> bool:
    """Whether it is an exported file, by its name."""
    return Path(str(weights)).suffix == ".onnx"


def _load(config, weights, *, device, overrides) -> Detector:
    if is_onnx(weights):
        from .onnx_detector import load_onnx

        return load_onnx(config, weights, device=device, overrides=overrides)
    if config is None:
        raise UserError(f"weights {weights} need the config of their model")
    return load_detector(config, weights, device=device, overrides=overrides)

"""A detector of tools/export.py in ONNX Runtime."""

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

from iou_balanced.engine import UserError

from .detector import Detector, load_images
from .onnx.metadata import images_for, unpack

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def load_onnx(
    config, file: str | os.PathLike, *, device: str | None = None, overrides: Sequence[str] = ()
) -> Detector:
    """Open an exported file.

    Args:
        config: is asked for its test mapper where the file does not have all of it.
        file: of tools/export.py.
        device: "cpu", "cuda" or "cuda:1"; by default a GPU, where this ONNX Runtime uses one.
        overrides: none are possible any more.

    Raises:
        UserError: it is not such a file, onnxruntime is missing or does not know the device, or
            there are overrides.
    """
    if overrides:
        raise UserError(
            f"{overrides[0]}: {file} is fixed; overrides are for the config, when it is exported"
        )
    session, used = _open(str(file), device)
    metadata = unpack(session.get_modelmeta().custom_metadata_map, str(file))
    images = images_for(metadata, str(file))
    if images is None:
        if config is None:
            raise UserError(
                f"{file} was exported with test augmentations of one's own: give the config too"
            )
        images = load_images(config)
    canvas = next((x for x in images.augmentations or () if hasattr(x, "postprocess")), None)
    run = OnnxRunner(session, canvas.postprocess if canvas else detector_postprocess)
    return Detector(run, images, metadata["class_names"], torch.device(used))


def _open(file: str, device: str | None):
    try:
        import onnxruntime
    except ImportError as e:
        raise UserError(
            f"{file} needs ONNX Runtime: pip install -e '.[export]' or pip install onnxruntime"
        ) from e
    if not os.path.isfile(file):
        raise UserError(f"weights={file}: there is no such file")
    available = onnxruntime.get_available_providers()
    kind, _, index = (device or "").partition(":")
    if device is None:
        kind = "cuda" if PROVIDERS["cuda"] in available else "cpu"
    if PROVIDERS.get(kind) not in available:
        raise UserError(
            f"device={device}: this ONNX Runtime has {', '.join(available)}; the package "
            "onnxruntime-gpu has CUDA"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # as PyTorch would take
    options.log_severity_level = 3  # its warnings are of the graph, and not the user's
    provider = (PROVIDERS[kind], {"device_id": int(index)}) if index else PROVIDERS[kind]
    try:
        session = onnxruntime.InferenceSession(file, options, providers=[provider])
    except Exception as e:  # its errors are bound from C++
        raise UserError(f"{file} cannot be opened: {' '.join(str(e).split())}") from e
    return session, kind


class OnnxRunner:
    """From inputs of one size, as `InputImages` makes them, to Detectron2's outputs.

    Args:
        session: an InferenceSession of an exported file.
        postprocess: from detections in the network's input, and the image's height and width, to
            detections in the image.
    """

    def __init__(self, session, postprocess: Callable[[Instances, int, int], Instances]):
        self.session, self.postprocess = session, postprocess
        (self.input,) = session.get_inputs()
        self.one_by_one = self.input.shape[0] == 1

    def __call__(self, inputs: Sequence[dict]) -> list[dict]:
        if self.one_by_one and len(inputs) > 1:
            return [output for x in inputs for output in self([x])]
        images = np.stack([x["image"].numpy() for x in inputs]).astype(np.float32, copy=False)
        found = self.session.run(["boxes", "scores", "labels"], {self.input.name: images})
        return [
            {"instances": self._instances(x, *(torch.from_numpy(part[i]) for part in found))}
            for i, x in enumerate(inputs)
        ]

    def _instances(self, x: dict, boxes, scores, labels) -> Instances:
        is_found = scores > 0
        result = Instances(tuple(x["image"].shape[1:]))
        result.pred_boxes = Boxes(boxes[is_found])
        result.scores, result.pred_classes = scores[is_found], labels[is_found]
        return self.postprocess(result, x["height"], x["width"])

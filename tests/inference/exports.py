"""Exports of the small detectors."""

from iou_balanced.inference.onnx import export

from .detectors import save_weights, write_images

SIZES = [(60, 80), (80, 60), (96, 96), (50, 110), (120, 70)] * 4


def exported(cfg, folder, **kwargs):
    """(weights, what the export says, the file)."""
    weights = save_weights(cfg, folder / "model.pth")
    file = folder / "model.onnx"
    images = write_images(folder / "check", *SIZES)
    return weights, export.export_onnx(cfg, weights, file, images=images, **kwargs), file
